"""JSON is parsed within limits everywhere."""

import json
from pathlib import Path

import pytest
from run_lines import whole

from tests.limited import refused
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.cmu_sdk import read_folds
from vadv_dist.errors import UserError
from vadv_dist.formats.json_text import MAX_BYTES, MAX_DEPTH, MAX_VALUES, JsonError, parse_json
from vadv_dist.reporting.run_files import read_log
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.storage import read_json

NESTED = "[" * 20_000
PAIRS = "[" * 20_000 + "]" * 20_000


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true, "x"]}', "3", "[]", '"x"', '{"a": {"b": {}}}'])
def test_ordinary_documents_are_parsed_like_json_does(text: str) -> None:
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)


def test_depth_is_limited() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for text in (PAIRS, "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), '{"a":' * 100 + "1" + "}" * 100):
        with pytest.raises(JsonError, match=f"nested more than {MAX_DEPTH} levels deep"):
            parse_json(text)


@pytest.mark.parametrize(
    "text",
    [NESTED, "9" * 5000, "{", b"\xff", f"[{'[],' * MAX_VALUES}1]", " " * (MAX_BYTES + 1), '{"a": 1e5', "\x00"],
    ids=["open", "digits", "cut", "bytes", "values", "size", "cut number", "nul"],
)
def test_other_input_gives_a_json_error(text: str | bytes) -> None:
    with pytest.raises(JsonError):
        parse_json(text)


@pytest.mark.parametrize("text", [PAIRS, f'{{"a": {"9" * 5000}}}', f'{{"a": {PAIRS}}}'])
def test_file_readers_name_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(text)
    for read in (read_json, read_folds, lambda _: Dataset.open(tmp_path)):
        with pytest.raises(UserError, match=r"dataset\.json cannot be read as JSON"):
            read(path)


def test_a_log_line_that_is_too_deep_is_refused_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(whole({"kind": "step", "step": step, "total": 1.0})) for step in (1, 2)]
    path.write_text(f"{lines[0]}\n{PAIRS}\n{lines[1]}\n")
    with pytest.raises(UserError, match="line 2, is damaged"):
        read_log(path)
    assert [line.step for line in MetricsLog(path).lines()] == [1, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"splits": {"train": {"shards": [{"path": "a", "rows": 10**12, "bytes": 10, "sha256": "x"}]}}},
        {"splits": {"train": {"shards": [{"path": "a", "rows": 10**17, "bytes": 10**17, "sha256": "x"}]}}},
        {"splits": json.loads('{"train": {"shards": ' + "[" * 50 + "]" * 50 + "}}")},
    ],
)
def test_commands_refuse_a_manifest_with_giant_numbers(tmp_path: Path, change: dict) -> None:
    raw = {"schema_version": 1, "features": {}, "label": {"low": -3, "high": 3, "kind": "regression"}, "splits": {}}
    (tmp_path / "dataset.json").write_text(json.dumps(raw | change))
    with pytest.raises(UserError, match="is malformed"):
        Dataset.open(tmp_path)


def test_commands_refuse_json_bombs_with_a_gigabyte_of_memory(tmp_path: Path) -> None:
    for text in (NESTED, f'{{"a": [{"[]," * 20_000_000}1]}}'):
        (tmp_path / "dataset.json").write_text(text)
        assert "dataset.json cannot be read as JSON" in refused("data-info", tmp_path)

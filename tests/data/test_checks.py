"""A check reports every problem of a data set with its place."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from vadv_dist.data.check_report import Finding, render_report
from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset, manifest_json
from vadv_dist.data.synth import make_dataset
from vadv_dist.errors import UserError
from vadv_dist.storage import read_json, sha256_file, write_json

SHARD = "train/00000.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("checks") / "sound"
    return make_dataset(folder, num_clips=48, visual_shape=(2, 1, 4), face_shape=(3, 2), shard_rows=16)


@pytest.fixture
def dataset(sound: Dataset, tmp_path: Path) -> Dataset:
    return Dataset.open(shutil.copytree(sound.root, tmp_path / "data"))


def rewrite(
    dataset: Dataset, change: Callable[[pa.Table], pa.Table], *, path: str = SHARD, declare: bool = True
) -> None:
    """Change a shard; with `declare` also update `dataset.json` to its new bytes."""
    file = dataset.root / path
    table = change(pq.read_table(file, partitioning=None))
    pq.write_table(table, file, compression="none", use_dictionary=["video_id", "source"], write_statistics=False)
    if not declare:
        return
    splits = {
        split: [
            replace(shard, bytes=file.stat().st_size, sha256=sha256_file(file)) if shard.path == path else shard
            for shard in shards
        ]
        for split, shards in dataset.manifest.splits.items()
    }
    write_json(dataset.root / "dataset.json", manifest_json(replace(dataset.manifest, splits=splits)))


def edit_manifest(dataset: Dataset, change: Callable[[dict], None]) -> None:
    raw = read_json(dataset.root / "dataset.json")
    change(raw)
    write_json(dataset.root / "dataset.json", raw)


def with_value(name: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        field = table.schema.field(name)
        column = pa.array(values, field.type)
        return table.set_column(table.column_names.index(name), field.with_nullable(True), column)

    return change


def with_feature(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pa.Table], pa.Table]:
    def apply(table: pa.Table) -> pa.Table:
        values = change(table[name].combine_chunks().to_numpy_ndarray().copy())
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
        return table.set_column(table.column_names.index(name), name, column)

    return apply


def with_a_hole(table: pa.Table) -> pa.Table:
    tensors = table["face"].combine_chunks()
    flat = tensors.storage.values.to_pylist()
    flat[7] = None
    storage = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), 6)
    column = pa.ExtensionArray.from_storage(tensors.type, storage)
    return table.set_column(table.column_names.index("face"), "face", column)


def poke(values: np.ndarray) -> np.ndarray:
    values[5, 0] = np.nan
    return values


def only_finding(dataset: Dataset) -> Finding:
    findings = check_dataset(dataset.root).findings
    assert len(findings) == 1, findings
    return findings[0]


def test_a_valid_data_set_has_no_findings(dataset: Dataset) -> None:
    report = check_dataset(dataset.root)
    assert report.ok
    assert report.findings == ()
    assert (report.rows, report.shards) == (48, 5)


def test_a_missing_data_set_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        check_dataset(tmp_path / "nowhere")


def test_a_changed_byte_is_found_by_the_hash(dataset: Dataset) -> None:
    path = dataset.root / SHARD
    content = path.read_bytes()
    at = content.index(b"s1v")
    path.write_bytes(content[:at] + b"X" + content[at + 1 :])
    findings = check_dataset(dataset.root).findings
    assert "SHA-256" in findings[0].what
    assert findings[0].where == SHARD


def test_a_truncated_shard_is_found_by_its_size_and_cannot_be_read(dataset: Dataset) -> None:
    path = dataset.root / SHARD
    path.write_bytes(path.read_bytes()[:500])
    report = check_dataset(dataset.root)
    assert [finding.file for finding in report.findings] == [SHARD, SHARD]
    assert "It has 500 bytes" in report.findings[0].what
    assert "not a readable Parquet file" in report.findings[1].what
    assert not report.ok


def test_a_missing_shard_is_found(dataset: Dataset) -> None:
    (dataset.root / SHARD).unlink()
    assert "missing" in only_finding(dataset).what


@pytest.mark.parametrize(
    ("change", "row", "field", "what"),
    [
        (with_value("label", 3, 3.5), 3, "label", "It is outside [-3, 3] in 1 row."),
        (with_value("label", 4, float("nan")), 4, "label", "It is NaN or infinity in 1 row."),
        (with_value("label", 4, None), 4, "label", "It is null in 1 of 16 rows."),
        (with_value("text", 2, "  "), 2, "text", "It is empty in 1 row."),
        (with_value("num_words", 1, 0), 1, "num_words", "It is not the number of words in text in 1 row."),
        (with_value("clip_id", 0, ""), 0, "clip_id", "It is empty in 1 row."),
        (with_feature("visual", poke), 5, "visual", "It has NaN or infinity in 1 row."),
        (
            with_feature("visual", lambda v: v[..., :3]),
            None,
            "visual",
            "It has type tensors of shape [2, 1, 3] (halffloat), expected tensors of shape [2, 1, 4] (halffloat).",
        ),
        (
            with_feature("face", lambda v: v.astype(np.float32)),
            None,
            "face",
            "It has type tensors of shape [3, 2] (float), expected tensors of shape [3, 2] (halffloat).",
        ),
        (with_a_hole, None, "face", "It has nulls inside tensors"),
        (lambda t: t.drop_columns("label"), None, "label", "The column is missing"),
        (
            lambda t: t.set_column(4, "label", pc.cast(t["label"], pa.float64())),
            None,
            "label",
            "It has type double, expected float.",
        ),
        (lambda t: t.slice(1), None, None, "It has 15 rows, but dataset.json declares 16."),
        (lambda t: t.slice(0, 0), None, None, "It has 0 rows, but dataset.json declares 16."),
    ],
)
def test_each_problem_inside_a_shard_is_one_error_with_its_place(
    dataset: Dataset, change: Callable[[pa.Table], pa.Table], row: int | None, field: str | None, what: str
) -> None:
    rewrite(dataset, change)
    finding = only_finding(dataset)
    assert (finding.level, finding.file, finding.row, finding.field) == ("error", SHARD, row, field)
    assert what in finding.what
    assert finding.advice


def test_many_rows_with_one_problem_are_one_finding(dataset: Dataset) -> None:
    def change(table: pa.Table) -> pa.Table:
        for row in (2, 7, 9):
            table = with_value("label", row, -4.0)(table)
        return table

    rewrite(dataset, change)
    assert only_finding(dataset).what == "It is outside [-3, 3] in 3 rows."
    assert only_finding(dataset).row == 2


def test_an_unknown_column_is_a_warning(dataset: Dataset) -> None:
    rewrite(dataset, lambda table: table.append_column("mood", pa.array([1] * len(table))))
    assert (only_finding(dataset).level, only_finding(dataset).field) == ("warning", "mood")
    assert check_dataset(dataset.root).ok


def test_undeclared_missing_features_are_found(dataset: Dataset) -> None:
    rewrite(dataset, with_value("face", 6, None))
    assert "{'face': 1}, but dataset.json declares {}" in only_finding(dataset).what


def test_values_of_missing_features_do_not_matter(dataset: Dataset) -> None:
    def change(table: pa.Table) -> pa.Table:
        table = with_feature("face", poke)(table)
        tensors = table["face"].combine_chunks()
        mask = pa.array([row == 5 for row in range(len(table))])
        storage = pa.FixedSizeListArray.from_arrays(tensors.storage.values, 6, mask=mask)
        column = pa.ExtensionArray.from_storage(tensors.type, storage)
        return table.set_column(table.column_names.index("face"), "face", column)

    rewrite(dataset, change)
    edit_manifest(dataset, lambda raw: raw["splits"]["train"]["shards"][0].update(missing={"face": 1}))
    assert check_dataset(dataset.root).findings == ()


def test_an_id_in_two_splits_is_an_error_that_names_both_rows(dataset: Dataset) -> None:
    test_shard = dataset.split("test")[0].path
    first = pq.read_table(dataset.root / SHARD, partitioning=None)["clip_id"][0].as_py()
    rewrite(dataset, with_value("clip_id", 4, first), path=test_shard)
    finding = only_finding(dataset)
    assert (finding.level, finding.file, finding.row) == ("error", test_shard, 4)
    assert f"'{first}' (also {SHARD} row 0)" in finding.what


def test_a_video_in_two_splits_is_a_warning(dataset: Dataset) -> None:
    valid_shard = dataset.split("valid")[0].path
    video = pq.read_table(dataset.root / SHARD, partitioning=None)["video_id"][0].as_py()
    rewrite(dataset, with_value("video_id", 0, video), path=valid_shard)
    report = check_dataset(dataset.root)
    assert report.ok
    assert [finding.what for finding in report.findings] == [f"1 video in both train and valid: {video}."]


def test_a_repeated_text_is_a_note_and_a_warning_if_labels_disagree(dataset: Dataset) -> None:
    def repeat(*labels: float) -> Callable[[pa.Table], pa.Table]:
        def change(table: pa.Table) -> pa.Table:
            for row, label in enumerate(labels):
                for name, value in (
                    ("text", "The very  same words" if row else "the very same words"),
                    ("num_words", 4),
                ):
                    table = with_value(name, row, value)(table)
                table = with_value("label", row, label)(table)
            return table

        return change

    rewrite(dataset, repeat(1.0, 1.2, 1.0))
    ids = ", ".join(pq.read_table(dataset.root / SHARD, partitioning=None)["clip_id"].to_pylist()[:3])
    report = check_dataset(dataset.root)
    (note,) = report.findings
    assert (note.level, note.field, report.ok) == ("note", "text", True)
    assert note.what == f"1 text occurs more than once in train: clips {ids}."
    out = io.StringIO()
    render_report(report, Console(file=out, width=80))
    assert "✓ nothing wrong, 1 note: 48 clips" in out.getvalue()
    rewrite(dataset, repeat(1.0, 1.2, -1.0))
    (warning,) = check_dataset(dataset.root).findings
    assert warning.level == "warning"
    assert "The labels of 1 such text disagree" in warning.what


def test_an_edited_manifest_is_found(dataset: Dataset) -> None:
    edit_manifest(dataset, lambda raw: raw["splits"]["test"].update(rows=7))
    assert "test declares 7 rows" in only_finding(dataset).what
    edit_manifest(dataset, lambda raw: raw.update(fingerprint="0" * 64))
    assert "fingerprint" in {finding.field for finding in check_dataset(dataset.root).findings}


def test_a_shard_listed_twice_is_found(dataset: Dataset) -> None:
    edit_manifest(dataset, lambda raw: raw["splits"]["valid"]["shards"].append(raw["splits"]["train"]["shards"][0]))
    whats = [finding.what for finding in check_dataset(dataset.root).findings]
    assert any("16 ids of another row" in what for what in whats)


def test_absent_splits_and_unlisted_shards_are_warnings(dataset: Dataset) -> None:
    splits = {name: shards for name, shards in dataset.manifest.splits.items() if name != "valid"}
    write_json(dataset.root / "dataset.json", manifest_json(replace(dataset.manifest, splits=splits)))
    report = check_dataset(dataset.root)
    assert report.ok
    assert [(finding.file, finding.level) for finding in report.findings] == [
        ("dataset.json", "warning"),
        ("valid/00000.parquet", "warning"),
    ]


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        (None, "missing"),
        ({"other": np.zeros((2, 4), np.float32)}, "The tensor is missing"),
        ({"prompts": np.zeros((3, 4), np.float32)}, "Its shape is [3, 4], expected [2, D]."),
        ({"prompts": np.full((2, 4), np.inf, np.float32)}, "NaN or infinity"),
    ],
)
def test_problems_with_the_prompts_are_found(dataset: Dataset, tensors: dict | None, what: str) -> None:
    dataset.prompts_path.unlink()
    if tensors is not None:
        save_file(tensors, dataset.prompts_path)
    assert what in only_finding(dataset).what


def test_a_prompts_file_of_another_format_is_found(dataset: Dataset) -> None:
    dataset.prompts_path.write_bytes(b"not tensors")
    assert "not a readable safetensors file" in only_finding(dataset).what


def test_all_problems_are_reported_errors_first(dataset: Dataset) -> None:
    rewrite(dataset, lambda table: table.append_column("mood", pa.array([1] * len(table))), declare=False)
    (dataset.root / dataset.split("test")[0].path).unlink()
    report = check_dataset(dataset.root)
    assert [finding.level for finding in report.findings] == ["error", "error", "warning"]
    assert json.loads(json.dumps(report.to_json()))["errors"] == 2


def test_the_printed_report_has_place_problem_and_advice(dataset: Dataset) -> None:
    rewrite(dataset, with_value("label", 3, 3.5))
    out = io.StringIO()
    render_report(check_dataset(dataset.root), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert lines[0] == f"error {SHARD} row 3, label"
    assert lines[1].strip() == "It is outside [-3, 3] in 1 row."
    assert lines[2].strip().startswith("→ Fix the labels")
    assert lines[3].startswith("✗ 1 error and 0 warnings: 48 clips in 5 shards")
    assert max(len(line) for line in lines) <= 80


def test_changed_prompts_are_found_by_their_hash(dataset: Dataset) -> None:
    save_file({"prompts": np.zeros((2, 4), np.float32)}, dataset.prompts_path)
    finding = only_finding(dataset)
    assert finding.file == "prompts.safetensors"
    assert "Its SHA-256 is" in finding.what


def test_prompts_without_a_declared_hash_are_accepted(dataset: Dataset) -> None:
    save_file({"prompts": np.zeros((2, 4), np.float32)}, dataset.prompts_path)
    plain = replace(dataset.manifest, prompts_sha256=None)
    write_json(dataset.root / "dataset.json", manifest_json(plain))
    assert check_dataset(dataset.root).findings == ()
    assert plain.fingerprint != dataset.manifest.fingerprint


def test_files_listed_in_provenance_are_checked_and_not_mistaken_for_shards(dataset: Dataset) -> None:
    path = dataset.root / "sources.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    record = {"name": path.name, "sha256": sha256_file(path)}
    edit_manifest(dataset, lambda raw: raw["provenance"].update(records=[record]))
    assert check_dataset(dataset.root).findings == ()
    path.write_bytes(path.read_bytes() + b"\n")
    assert "Its SHA-256 is" in only_finding(dataset).what
    path.unlink()
    assert "missing" in only_finding(dataset).what

"""`vadv ingest` for every format: output and error messages."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from vadv_dist.cli import main
from vadv_dist.data.dataset import Dataset

sys.path.append(str(Path(__file__).parents[1] / "data" / "readers"))
from foreign_files import mmsa_content, sdk_files, write_mmsa, write_vegas  # next to the readers' tests


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["ingest", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_mmsa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_mmsa(tmp_path / "m.pkl", {**mmsa_content()})
    options = ["--frames", 4, "--pool", "sample", "--vision-as", "face", "--dtype", "float32", "--source", "mosi"]
    summary = answer(capsys, "mmsa", "--file", path, "--out", tmp_path / "out", *options)
    assert summary["features"] == {"face": [4, 3], "audio": [4, 2]}
    assert (summary["rows_read"], summary["rows_written"], summary["dropped"]) == (10, 10, {})


def test_cmu_sdk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sdk_files(tmp_path)
    common = ["--labels", files["labels"], "--folds", files["folds"]]
    texts = ["--text-csv", files["texts"], "--id-column", "video_id", "clip_id"]
    summary = answer(capsys, "cmu-sdk", *common, *texts, "--visual", files["visual"], "--out", tmp_path / "a")
    assert summary["features"] == {"visual": [8, 1, 2]}
    summary = answer(capsys, "cmu-sdk", *common, "--words", files["words"], "--out", tmp_path / "b")
    assert summary["rows_written"] == 6


def test_vegas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_vegas(tmp_path / "v.h5")
    summary = answer(capsys, "vegas", "--file", path, "--out", tmp_path / "out", "--valid-fraction", 0.2, "--seed", 3)
    assert summary["splits"] == {"train": 50, "valid": 10, "test": 10}
    assert main(["data-info", str(tmp_path / "out")]) == 0
    assert main(["data-check", str(tmp_path / "out")]) == 0


def test_counts_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = mmsa_content()
    content["test"]["raw_text"][0] = ""
    path = write_mmsa(tmp_path / "m.pkl", content)
    assert main(["ingest", "mmsa", "--file", str(path), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "9 of 10 rows (5 train, 2 valid, 2 test)" in printed
    assert "dropped 1: no words" in printed


@pytest.mark.parametrize("format_", ["table", "mmsa", "cmu-sdk", "vegas"])
def test_the_help_shows_values_in_one_style(capsys: pytest.CaptureFixture[str], format_: str) -> None:
    """Argparse makes `--text-column TEXT_COLUMN` of an option whose value has no name."""
    with pytest.raises(SystemExit):
        main(["ingest", format_, "--help"])
    shown = capsys.readouterr().out
    assert not re.search(r"--([a-z]+)-([a-z]+) \[?\1_\2", shown, re.IGNORECASE)
    assert "of the CSV file" not in shown


def test_invalid_file_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.pkl").write_bytes(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
    assert main(["ingest", "mmsa", "--file", str(tmp_path / "x.pkl"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("vadv: ")
    assert said.count("\n") == 1


@pytest.mark.real_data
def test_mosei_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str], real_data: Path) -> None:
    path = real_data / "cmu_mosei" / "mosei_text_label_22788.csv"
    options = ["--id-column", "video_id", "clip_id", "--split-column", "mode"]
    summary = answer(capsys, "table", "--csv", path, "--out", tmp_path / "out", *options)
    assert summary["splits"] == {"train": 16274, "valid": 1861, "test": 4653}
    assert (summary["rows_read"], summary["rows_written"], summary["dropped"]) == (22788, 22788, {})
    assert Dataset.open(tmp_path / "out").manifest.provenance["counts"]["rows_read"] == 22788
    assert sum(summary["videos"].values()) == 3217

"""Texts of a CSV and intervals of labels are matched only after comparing whatever both files contain."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import write_csd

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.clip_rows import TextColumns
from vadv_dist.data.readers.cmu_sdk import ingest_cmu_sdk
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.windows import to_window
from vadv_dist.errors import UserError

LABELS = {"aa": [2.0, -2.0, 1.0], "bb": [1.0, -1.0], "cc": [1.0, -1.0, 0.5, 3.0]}


def sdk(tmp_path: Path, intervals: dict[str, Any] | None = None) -> tuple[Path, Path]:
    clips = {v: [[2 * k, 2 * k + 2] for k in range(len(labels))] for v, labels in LABELS.items()} | (intervals or {})
    csd = {v: (clips[v], np.array(labels, np.float32)[:, None]) for v, labels in LABELS.items()}
    folds = tmp_path / "folds.json"
    folds.write_text(json.dumps({"train": ["aa"], "valid": ["bb"], "test": ["cc"]}))
    return write_csd(tmp_path / "labels.csd", "L", csd), folds


def texts(tmp_path: Path, first: int, columns: str = "label", sign: str = "_", skip: tuple[str, ...] = ()) -> Path:
    """One row per clip; its text names its true position in time."""
    lines = [",".join(["id", "text", *columns.split()])]
    for video, labels in LABELS.items():
        for k, label in enumerate(labels):
            if f"{video}{k}" in skip:
                continue
            cells = {"label": f"{label}", "start": f"{2 * k}.0", "end": f"{2 * k + 2}.01", "other": "word"}
            lines.append(
                ",".join([f"{video}{sign}{k + first}", f"{video} sentence {k}", *(cells[c] for c in columns.split())])
            )
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(lines))
    return path


def ingest(tmp_path: Path, csv: Path, **options: Any) -> dict[str, tuple[str, float]]:
    labels, folds = options.pop("files", None) or sdk(tmp_path)
    summary = ingest_cmu_sdk(
        labels, folds, tmp_path / "out", text_csv=csv, text_columns=TextColumns(("id",)), **options
    )
    pairs = {"summary": (str(summary), 0.0)}
    dataset = Dataset.open(tmp_path / "out")
    for split in dataset.manifest.splits:
        window = to_window([ShardReader(dataset).read(shard) for shard in dataset.split(split)], {})
        pairs |= dict(zip(window.clip_id, zip(window.text, window.label.tolist(), strict=True), strict=True))
    return pairs


def require_right(pairs: dict[str, tuple[str, float]], skip: tuple[str, ...] = ()) -> None:
    for video, labels in LABELS.items():
        for k, label in enumerate(labels):
            if f"{video}{k}" in skip:
                assert f"{video}_{k + 1}" not in pairs
            else:
                assert pairs[f"{video}_{k + 1}"] == (f"{video} sentence {k}", label)


@pytest.mark.parametrize("columns", ["label", "start end", "label start end other"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("sign", ["_", "$_$", "_0"])
def test_labels_or_times_determine_the_numbering(tmp_path: Path, columns: str, first: int, sign: str) -> None:
    pairs = ingest(tmp_path, texts(tmp_path, first, columns, sign))
    require_right(pairs)
    assert ("9 texts numbered from 0, verified by their labels or times" in pairs["summary"][0]) == (first == 0)


@pytest.mark.parametrize("columns", ["", "other"])
def test_texts_from_0_are_refused_if_they_cannot_be_verified(tmp_path: Path, columns: str) -> None:
    with pytest.raises(UserError, match=r"texts.csv counts clips from 0 \('aa_0'\).*Add columns start and end"):
        ingest(tmp_path, texts(tmp_path, 0, columns))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("columns", ["", "other"])
def test_texts_from_1_need_no_verification_if_every_interval_has_one(tmp_path: Path, columns: str) -> None:
    require_right(ingest(tmp_path, texts(tmp_path, 1, columns)))


@pytest.mark.parametrize("columns", ["label", "start end"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_missing_text_drops_only_its_clip(tmp_path: Path, columns: str, first: int) -> None:
    require_right(ingest(tmp_path, texts(tmp_path, first, columns, skip=("cc1",))), skip=("cc1",))


def test_numbers_that_skip_a_clip_need_no_verification(tmp_path: Path) -> None:
    require_right(ingest(tmp_path, texts(tmp_path, 1, "", skip=("cc1",))), skip=("cc1",))


def renumbered(tmp_path: Path, columns: str) -> Path:
    """The second text of cc is removed, and the following ones are renumbered without a gap."""
    path = texts(tmp_path, 1, columns, skip=("cc1",))
    path.write_text(path.read_text().replace("cc_3", "cc_2").replace("cc_4", "cc_3"))
    return path


def test_renumbered_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cc has 3 texts and 4 intervals"):
        ingest(tmp_path, renumbered(tmp_path, ""))
    with pytest.raises(UserError, match=r"2 of 8 texts contradict.*'cc_2' has label 0.5, but its interval -1"):
        ingest(tmp_path, renumbered(tmp_path, "label"))
    with pytest.raises(
        UserError, match=r"2 of 8 texts contradict.*'cc_2' starts at 4 s, but the label's interval at 2 s"
    ):
        ingest(tmp_path, renumbered(tmp_path, "start end"))


def test_unordered_intervals_need_verification(tmp_path: Path) -> None:
    files = sdk(tmp_path, {"bb": [[2, 4], [0, 2]]})
    with pytest.raises(UserError, match="bb has intervals that are not ordered by time"):
        ingest(tmp_path, texts(tmp_path, 1, ""), files=files)


def test_two_ids_for_one_clip_are_refused(tmp_path: Path) -> None:
    path = texts(tmp_path, 1, "label")
    path.write_text(path.read_text() + "\naa_01,another,2.0")
    with pytest.raises(UserError, match=r"'aa_01' names the same clip as .*line 2"):
        ingest(tmp_path, path)


def test_times_in_milliseconds_are_refused(tmp_path: Path) -> None:
    path = texts(tmp_path, 1, "start end")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line.replace(".0,", "000,").replace(".01", "010") for line in lines[1:])]))
    with pytest.raises(UserError, match="contradict their intervals"):
        ingest(tmp_path, path)


@pytest.mark.parametrize("factor", [1000, 30, 1 / 1000])
def test_a_sequence_with_another_time_unit_is_refused(tmp_path: Path, factor: float) -> None:
    rows = {v: ([[k * factor, (k + 1) * factor] for k in range(4)], [[1.0, 2]] * 4) for v in LABELS}
    visual = write_csd(tmp_path / "visual.csd", "V", rows)
    with pytest.raises(UserError, match="use different units of time"):
        ingest(tmp_path, texts(tmp_path, 1), visual=visual)
    assert not (tmp_path / "out").exists()


def test_a_sequence_of_other_videos_is_refused(tmp_path: Path) -> None:
    visual = write_csd(tmp_path / "visual.csd", "V", {"AA": ([[0, 1]], [[1.0, 2]])})
    with pytest.raises(UserError, match="has none of the videos"):
        ingest(tmp_path, texts(tmp_path, 1), visual=visual)


def test_unordered_rows_are_sorted_by_time(tmp_path: Path) -> None:
    labels, folds = sdk(tmp_path)
    said = {"aa": ([[1, 2], [0, 1], [2, 4], [4, 6]], np.array([[b"second"], [b"first"], [b"x"], [b"y"]]))}
    words = write_csd(tmp_path / "words.csd", "W", said)
    ingest_cmu_sdk(labels, folds, tmp_path / "out", words=words)
    dataset = Dataset.open(tmp_path / "out")
    assert to_window([ShardReader(dataset).read(dataset.split("train")[0])], {}).text == ["first second", "x", "y"]

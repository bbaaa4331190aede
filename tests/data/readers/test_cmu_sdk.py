"""Computational sequences aligned to the intervals of their labels."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from foreign_files import sdk_files, write_csd

from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.clip_rows import TextColumns
from vadv_dist.data.readers.cmu_sdk import ingest_cmu_sdk
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.errors import UserError

BY_VIDEO_AND_CLIP = TextColumns(("video_id", "clip_id"))
MEAN = Framing(1)


def ingest(files: dict[str, Path], out: Path, **options: Any) -> Any:
    return ingest_cmu_sdk(files["labels"], files["folds"], out, **options)


def rows_of(out: Path, split: str) -> dict[str, Any]:
    dataset = Dataset.open(out)
    table = pq.read_table(dataset.shard_path(dataset.split(split)[0]))
    return {**table.to_pydict(), **{n: table[n].combine_chunks().to_numpy_ndarray() for n in dataset.manifest.features}}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "in").mkdir()
    return sdk_files(tmp_path / "in")


def test_words_and_sequences_belong_to_the_interval_of_their_midpoint(tmp_path: Path, files: dict[str, Path]) -> None:
    summary = ingest(
        files, tmp_path / "out", words=files["words"], visual=files["visual"], audio=files["audio"], framing=MEAN
    )
    assert summary.splits == {"train": 2, "valid": 2, "test": 2}
    assert summary.features == {"visual": [1, 1, 2], "audio": [1, 3]}
    assert summary.missing == {"visual": 0, "audio": 0}
    assert summary.notes == {"videos of the folds without labels": 1}
    rows = rows_of(tmp_path / "out", "valid")
    assert rows["clip_id"] == ["b_c_1", "b_c_2"]
    assert rows["video_id"] == ["b_c"] * 2
    assert rows["text"] == ["well good", "bad"]  # pauses are not words
    np.testing.assert_array_equal(rows["label"], [2, -0.5])
    # Frames 0 to 7 of half a second: the midpoints of 0 to 3 are before 2 s, those of 4 to 6 before 3.5 s.
    np.testing.assert_allclose(rows["visual"][:, 0, 0], [[1.5, 15], [5, 50]])
    np.testing.assert_allclose(rows["audio"][:, 0, 0], [1.5, 4])
    assert check_dataset(tmp_path / "out").ok


def test_texts_from_a_csv_are_found_by_id_and_checked_by_time(tmp_path: Path, files: dict[str, Path]) -> None:
    options = {"text_csv": files["texts"], "text_columns": BY_VIDEO_AND_CLIP}
    ingest(files, tmp_path / "out", **options)
    assert rows_of(tmp_path / "out", "test")["text"] == ["d says 1", "d says 2"]
    text = files["texts"].read_text().replace("d,2,d says 2,2,3.5", "d,2,d says 2,2.2,3.5")
    files["texts"].write_text(text)
    with pytest.raises(UserError, match=r"text 'd_2' starts at 2.2 s, but the label's interval at 2 s"):
        ingest(files, tmp_path / "again", **options)


def test_intervals_without_words_a_fold_or_a_text_are_dropped_and_counted(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    files["folds"].write_text(json.dumps({"train": ["a"], "valid": ["b_c"]}))
    text = "\n".join(files["texts"].read_text().splitlines()[:-3]) + "\nx,1,unused,0,1\n"
    files["texts"].write_text(text)
    summary = ingest(files, tmp_path / "out", text_csv=files["texts"], text_columns=BY_VIDEO_AND_CLIP)
    assert summary.dropped == {"no text for the clip": 1, "video in no fold": 2}
    assert (summary.rows_read, summary.rows_written) == (6, 3)
    assert summary.notes == {"texts without a clip": 1}
    counts = Dataset.open(tmp_path / "out").manifest.provenance["counts"]
    assert counts["dropped_for_example"] == {
        "no text for the clip": ["b_c interval 2"],
        "video in no fold": ["d interval 1", "d interval 2"],
    }
    with pytest.raises(UserError, match=r"labels.csd b_c interval 2: no text has the id 'b_c_2'"):
        ingest(files, tmp_path / "no", text_csv=files["texts"], text_columns=BY_VIDEO_AND_CLIP, bad_rows="error")


def test_the_feature_is_missing_for_a_video_without_a_sequence(tmp_path: Path, files: dict[str, Path]) -> None:
    write_csd(files["audio"], "COVAREP", {"a": ([[0, 1], [1, 2]], [[1.0, -np.inf], [3, 4]])})
    summary = ingest(files, tmp_path / "out", words=files["words"], audio=files["audio"], framing=MEAN)
    # Of a's two clips only the first has rows; b_c and d have none.
    assert summary.missing == {"audio": 5}
    assert summary.notes["NaN or infinite values of audio, replaced by 0"] == 1
    dataset = Dataset.open(tmp_path / "out")
    train = pq.read_table(dataset.shard_path(dataset.split("train")[0]))["audio"].to_pylist()
    assert train == [[2.0, 2.0], None]


def test_label_number_selects_the_label(tmp_path: Path, files: dict[str, Path]) -> None:
    ingest(files, tmp_path / "out", words=files["words"], label_number=1, label_range=(0, 10))
    assert rows_of(tmp_path / "out", "train")["label"] == [9, 9]
    with pytest.raises(UserError, match="has 2 numbers per label, so --label-number 2 does not exist"):
        ingest(files, tmp_path / "no", words=files["words"], label_number=2)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"train": ["a"], "test": ["a"]}, "video 'a' is in both train and test"),
        ({"training": ["a"]}, "has a fold 'training', expected one of train"),
        ({"train": "a"}, "fold 'train' is not a list of video ids"),
        ({}, "has no videos"),
    ],
)
def test_invalid_folds_are_refused(tmp_path: Path, files: dict[str, Path], folds: dict, message: str) -> None:
    files["folds"].write_text(json.dumps(folds))
    with pytest.raises(UserError, match=message):
        ingest(files, tmp_path / "out", words=files["words"])


def test_exactly_one_of_words_and_a_csv_is_needed(tmp_path: Path, files: dict[str, Path]) -> None:
    for options in ({}, {"words": files["words"], "text_csv": files["texts"]}):
        with pytest.raises(UserError, match=r"either --words FILE.csd or --text-csv FILE.csv"):
            ingest(files, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("name", "videos", "message"),
    [
        ("labels", {"a": ([[0, 1]], [[1.0], [2.0]])}, r"numbers of shape \[2, 1\], expected numbers of shape \[1, D\]"),
        ("labels", {"a": ([0, 1], [[1.0], [2.0]])}, r"intervals of a have shape \[2\], expected \[L, 2\]"),
        ("words", {"a": ([[0, 1]], [[1.0]])}, "expected strings of shape"),
        ("audio", {"a": ([[0, 1]], [[b"x"]])}, "expected numbers of shape"),
        ("audio", {"a": ([[0, 1]], [1.0])}, r"no features of shape \[L, D\] in any video"),
        ("audio", {"a": ([[0, 1]], [[1.0, 2]]), "b_c": ([[0, 1]], [[1.0]])}, r"audio of shape \[1, 1\]"),
    ],
)
def test_sequences_with_another_layout_are_refused(
    tmp_path: Path, files: dict[str, Path], name: str, videos: dict, message: str
) -> None:
    write_csd(files[name], "x", videos)
    with pytest.raises(UserError, match=message):
        ingest(files, tmp_path / "out", words=files["words"], audio=files["audio"], framing=MEAN)
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
def test_the_labels_of_mosi_equal_those_of_its_table(tmp_path: Path, real_data: Path) -> None:
    mosi = real_data / "cmu_mosi"
    columns = TextColumns(("id",), "text_mmsa_style", "text")
    summary = ingest_cmu_sdk(
        mosi / "CMU_MOSI_Opinion_Labels.csd",
        mosi / "std_folds.json",
        tmp_path / "out",
        text_csv=mosi / "mosi_segments.csv",
        text_columns=columns,
        bad_rows="error",
    )
    assert summary.splits == {"train": 1284, "valid": 229, "test": 686}
    assert summary.fallback_texts == 4
    with (mosi / "mosi_segments.csv").open(encoding="utf-8-sig") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    dataset = Dataset.open(tmp_path / "out")
    seen = 0
    for split in ("train", "valid", "test"):
        for shard in dataset.split(split):
            rows = pq.read_table(dataset.shard_path(shard)).to_pydict()
            for clip_id, video_id, label in zip(rows["clip_id"], rows["video_id"], rows["label"], strict=True):
                row = table[clip_id]
                assert (row["video_id"], row["split"]) == (video_id, split)
                assert label == pytest.approx(float(row["label"]), abs=1e-6)  # the table has six decimals
                seen += 1
    assert seen == 2199

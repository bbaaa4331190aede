"""A table as a data set: splits, provenance, a validation split cut from train, and MOSI's table."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from csv_files import IDS, changed, refusal, table_of, write_csv

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.ingestion import IngestSummary
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.errors import UserError
from vadv_dist.storage import read_json, sha256_file

MOSI = Path(__file__).parents[4] / "shared/data/cmu_mosi"


def test_rows_are_written_to_their_splits(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "my clips.csv")
    summary = ingest_table(path, tmp_path / "out")
    assert summary == IngestSummary(
        uri=str(tmp_path / "out"),
        rows_read=4,
        rows_written=4,
        splits={"train": 2, "valid": 1, "test": 1},
        videos={"train": 1, "valid": 1, "test": 1},
        features={},
        missing={},
        fallback_texts=0,
        cut_from_train=0,
        label={"low": -3.0, "high": 3.0, "threshold": 0.0, "min": -3.0, "max": 3.0},
        fingerprint=Dataset.open(tmp_path / "out").manifest.fingerprint,
        said=("read as CSV with commas between cells in UTF-8",),
    )
    train = table_of(tmp_path / "out", "train")
    assert train["clip_id"] == ["a_1", "a_2"]
    assert train["text"] == ["it was good", "it was, well, dull"]
    assert train["label"] == pytest.approx([1.5, -0.2])
    assert train["num_words"] == [3, 4]
    assert train["source"] == ["my clips"] * 2


def test_provenance_records_files_and_options(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "clips.csv")
    np.savez(tmp_path / "f.npz", id=IDS, video=np.ones((4, 3), np.float32))
    ingest_table(path, tmp_path / "out", arrays=[f"{tmp_path}/f.npz:video=visual"], seed=7)
    provenance = Dataset.open(tmp_path / "out").manifest.provenance
    assert [(file["name"], file["sha256"]) for file in provenance["files"]] == [
        (name, sha256_file(tmp_path / name)) for name in ("clips.csv", "f.npz")
    ]
    assert provenance["options"]["arrays"] == {"visual": "f.npz:video"}
    assert provenance["options"]["seed"] == 7
    assert str(tmp_path) not in str(provenance)


def test_renamed_columns_and_another_label_range(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv", changed(0, "label", "9"), ["name", "film", "fold", "score", "words"])
    ingest_table(
        path,
        tmp_path / "out",
        id_column="name",
        video_column="film",
        split_column="fold",
        label_column="score",
        text_column="words",
        label_range=(-3, 10),
        source="films",
    )
    train = table_of(tmp_path / "out", "train")
    assert train["label"][0] == 9
    assert train["source"][0] == "films"
    assert Dataset.open(tmp_path / "out").manifest.label.high == 10


def long_table(path: Path) -> Path:
    rows = [[f"v{v}_{c}", f"v{v}", "train", "0", "words"] for v in range(20) for c in range(5)]
    return write_csv(path, [*rows, ["t_1", "t", "test", "0", "words"]])


def test_validation_is_cut_from_train_by_whole_videos_and_by_seed(tmp_path: Path) -> None:
    path = long_table(tmp_path / "c.csv")
    chosen = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        summary = ingest_table(path, tmp_path / name, valid_fraction=0.1, seed=seed)
        assert summary.splits == {"train": 90, "valid": 10, "test": 1}
        assert summary.cut_from_train == 10
        videos = {split: set(table_of(tmp_path / name, split)["video_id"]) for split in ("train", "valid")}
        assert not videos["train"] & videos["valid"]
        chosen.append(videos["valid"])
    assert chosen[0] == chosen[1] != chosen[2]


def test_no_validation_split_is_cut_by_default(tmp_path: Path) -> None:
    assert ingest_table(long_table(tmp_path / "c.csv"), tmp_path / "out").splits == {"train": 100, "test": 1}


def test_a_tiny_fraction_still_leaves_both_splits(tmp_path: Path) -> None:
    rows = [["a_1", "a", "train", "0", "x"], ["b_1", "b", "train", "0", "x"]]
    for fraction in (0.01, 0.99):
        out = tmp_path / f"{fraction}"
        summary = ingest_table(write_csv(tmp_path / "c.csv", rows), out, valid_fraction=fraction)
        assert summary.splits == {"train": 1, "valid": 1}


def test_an_existing_data_set_is_not_overwritten(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv")
    first = ingest_table(path, tmp_path / "out")
    with pytest.raises(UserError, match="already exists, and a data set is not overwritten"):
        ingest_table(path, tmp_path / "out", source="other")
    assert Dataset.open(tmp_path / "out").manifest.fingerprint == first.fingerprint


def test_the_reader_imports_no_torch() -> None:
    code = "import sys, vadv_dist.data.readers.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def mosi(name: str) -> Path:
    path = MOSI / name
    if not path.is_file():
        pytest.skip(f"{name} is not available")
    return path


@pytest.mark.real_data
def test_mosi_words_with_the_official_split(tmp_path: Path) -> None:
    path = mosi("mosi_segments.csv")
    assert ingest_table(path, tmp_path / "text").splits == {"train": 1284, "valid": 229, "test": 686}
    with pytest.raises(UserError, match="text_mmsa_style is empty"):
        ingest_table(path, tmp_path / "cleaned", text_column="text_mmsa_style")
    summary = ingest_table(path, tmp_path / "cleaned", text_column="text_mmsa_style", fallback_text_column="text")
    assert summary.fallback_texts == 4
    assert summary.rows_written == 2199


@pytest.mark.real_data
def test_mosi_words_with_video_vectors_and_their_split(tmp_path: Path) -> None:
    path, features = mosi("mosi_segments.csv"), mosi("mosi_utterance_features.npz")
    options = {"split_column": "bclstm_split", "arrays": [f"{features}:video=visual"]}
    summary = ingest_table(path, tmp_path / "all", **options)
    assert summary.splits == {"train": 1447, "test": 752}
    assert summary.features == {"visual": [1, 1, 100]}
    cut = ingest_table(path, tmp_path / "cut", valid_fraction=0.1, **options)
    assert cut.splits["train"] + cut.splits["valid"] == 1447
    assert cut.splits["valid"] == pytest.approx(145, abs=30)


STARS = [["a_1", "a", "train", "1", "bad"], ["b_1", "b", "train", "4", "good"], ["c_1", "c", "valid", "5", "superb"]]


@pytest.mark.parametrize(
    ("options", "threshold"),
    [
        ({"label_range": (1.0, 5.0)}, 3.0),
        ({"label_range": (1.0, 5.0), "threshold": 3.5}, 3.5),
        ({"label_range": (-5.0, 5.0)}, 0.0),
    ],
)
def test_the_threshold_is_recorded(tmp_path: Path, options: dict, threshold: float) -> None:
    summary = ingest_table(write_csv(tmp_path / "w.csv", STARS), tmp_path / "out", **options)
    assert read_json(tmp_path / "out" / "dataset.json")["label"]["threshold"] == threshold
    assert Dataset.open(tmp_path / "out").manifest.label.positive_from == threshold
    assert summary.label == {
        "low": options["label_range"][0],
        "high": 5.0,
        "threshold": threshold,
        "min": 1.0,
        "max": 5.0,
    }


def test_statistics_have_range_and_median_of_labels(tmp_path: Path) -> None:
    ingest_table(write_csv(tmp_path / "w.csv", STARS), tmp_path / "out", label_range=(1.0, 5.0))
    train = Dataset.open(tmp_path / "out").manifest.statistics["train"]
    assert (train.label_min, train.label_median, train.label_max) == (1.0, 2.5, 4.0)


@pytest.mark.parametrize("threshold", [1.0, 5.0, 0.0, float("nan")])
def test_a_threshold_that_leaves_one_class_empty_is_refused(tmp_path: Path, threshold: float) -> None:
    path = write_csv(tmp_path / "w.csv", STARS)
    message = refusal(path, tmp_path, label_range=(1.0, 5.0), threshold=threshold)
    assert "expected a number between the lowest and the highest label (1 and 5" in message


@pytest.mark.parametrize(
    ("label_range", "warning"),
    [
        ((1.0, 5.0), None),
        ((0.0, 100.0), "are on one side of the threshold"),
        ((-3.0, 8.0), "fill less than half of that range"),
    ],
)
def test_labels_that_do_not_fit_their_range_are_reported(
    tmp_path: Path, label_range: tuple, warning: str | None
) -> None:
    text = str(ingest_table(write_csv(tmp_path / "w.csv", STARS), tmp_path / "out", label_range=label_range))
    assert "labels from 1 to 5 in" in text
    assert ("warning" in text) == (warning is not None)
    assert warning is None or warning in text

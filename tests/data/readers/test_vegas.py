"""VEGAS: vectors with classes, and a validation split cut from train."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from foreign_files import write_vegas

from vadv_dist.data.checks import check_dataset
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.info import dataset_info
from vadv_dist.data.info_view import render_info
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.data.readers.vegas import ingest_vegas, stratified_cut
from vadv_dist.data.schema import LabelSpec
from vadv_dist.data.shared_videos import check_datasets
from vadv_dist.errors import UserError

UNEVEN = [0] * 40 + [1] * 20 + [2] * 5 + [3]


def rows_of(out: Path, split: str) -> dict[str, Any]:
    dataset = Dataset.open(out)
    table = pq.read_table(dataset.shard_path(dataset.split(split)[0]))
    return {**table.to_pydict(), **{n: table[n].combine_chunks().to_numpy_ndarray() for n in dataset.manifest.features}}


@pytest.mark.parametrize("one_hot", [False, True])
def test_vectors_and_classes_are_read_without_texts(tmp_path: Path, one_hot: bool) -> None:
    path = write_vegas(tmp_path / "v.h5", one_hot=one_hot)
    summary = ingest_vegas(path, tmp_path / "out", framing=Framing(dtype="float32"), source="vegas")
    assert summary.splits == {"train": 50, "valid": 10, "test": 10}
    assert summary.cut_from_train == 10
    assert summary.features == {"visual": [1, 1, 6], "audio": [4]}
    test = rows_of(tmp_path / "out", "test")
    assert test["clip_id"] == [f"test_{i:05d}" for i in range(10)]
    assert test["text"] == [""] * 10
    assert test["label"] == list(range(10))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(test["visual"][:, 0, 0], file["visual_test"][:])
        np.testing.assert_array_equal(test["audio"], file["audio_test"][:])
    assert Dataset.open(tmp_path / "out").manifest.label == LabelSpec(0, 9, "class")
    assert check_dataset(tmp_path / "out").ok


def test_the_validation_split_has_the_same_share_of_every_class(tmp_path: Path) -> None:
    path = write_vegas(tmp_path / "v.h5", UNEVEN)
    ingest_vegas(path, tmp_path / "out", valid_fraction=0.2)
    train, valid = (rows_of(tmp_path / "out", split) for split in ("train", "valid"))
    assert np.bincount(np.array(valid["label"], int), minlength=4).tolist() == [8, 4, 1, 0]
    assert np.bincount(np.array(train["label"], int), minlength=4).tolist() == [32, 16, 4, 1]
    assert not set(train["clip_id"]) & set(valid["clip_id"])
    numbers = [int(name.removeprefix("train_")) for name in valid["clip_id"]]
    np.testing.assert_array_equal(valid["visual"][:, 0, 0, 0], numbers)  # the vector moved with its row
    options = Dataset.open(tmp_path / "out").manifest.provenance["options"]
    assert options["valid_split"] == "cut from train by seed, the same share of every class"
    assert (options["valid_fraction"], options["seed"]) == (0.2, 1)


def test_the_cut_depends_only_on_the_seed() -> None:
    classes = np.array(UNEVEN)
    one, again, other = (stratified_cut(classes, 0.3, seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert not stratified_cut(classes, 0, 1).any()
    assert stratified_cut(np.array([0, 0, -1]), 0.99, 1).tolist().count(True) == 1


def test_classes_may_be_counted_from_one(tmp_path: Path) -> None:
    path = write_vegas(tmp_path / "v.h5", [1 + i % 10 for i in range(30)], list(range(1, 11)))
    ingest_vegas(path, tmp_path / "out", valid_fraction=0)
    assert rows_of(tmp_path / "out", "test")["label"] == list(range(10))
    assert "valid" not in Dataset.open(tmp_path / "out").manifest.splits
    assert Dataset.open(tmp_path / "out").manifest.provenance["options"]["first_class_in_file"] == 1


def test_rows_without_a_class_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write_vegas(tmp_path / "v.h5")
    with h5py.File(path, "a") as file:
        del file["lab_test"]
        file["lab_test"] = [0.0, 1.5, -1, 99, np.nan, 5, 6, 7, 8, 9]
    summary = ingest_vegas(path, tmp_path / "out")
    assert summary.dropped == {"no class": 4}
    assert summary.splits["test"] == 6
    with pytest.raises(UserError, match=r"v.h5 test row 1: lab_test is not a class"):
        ingest_vegas(path, tmp_path / "no", bad_rows="error")


def test_class_names_are_recorded_and_shown(tmp_path: Path) -> None:
    from rich.console import Console

    names = [f"sound {i}" for i in range(10)]
    ingest_vegas(write_vegas(tmp_path / "v.h5"), tmp_path / "out", class_names=names)
    info = dataset_info(tmp_path / "out")
    assert info["label"]["classes"] == names
    assert info["label"]["histogram"]["counts"] == [7] * 10
    console = Console(width=100, record=True)
    render_info(info, console)
    assert "sound 3" in console.export_text()


AVE_CLASSES = tuple(f"event {i}" for i in range(15))  # the subset of AVE that retrieval papers use


@pytest.mark.parametrize("one_hot", [False, True])
def test_ave_has_the_same_layout_with_fifteen_classes(tmp_path: Path, one_hot: bool) -> None:
    labels = tuple(i % 15 for i in range(150))
    path = write_vegas(tmp_path / "ave_feature_norm.h5", labels, tuple(range(15)), one_hot, num_classes=15)
    summary = ingest_vegas(path, tmp_path / "out", num_classes=15, class_names=AVE_CLASSES)
    assert summary.splits == {"train": 135, "valid": 15, "test": 15}
    assert Dataset.open(tmp_path / "out").manifest.label == LabelSpec(0, 14, "class", AVE_CLASSES)
    assert check_dataset(tmp_path / "out").findings == ()
    assert rows_of(tmp_path / "out", "test")["source"] == ["ave_feature_norm"] * 15
    assert sorted(rows_of(tmp_path / "out", "valid")["label"]) == list(range(15))


@pytest.mark.parametrize("first", [0, 1])
def test_more_classes_than_given_are_refused_with_their_number(tmp_path: Path, first: int) -> None:
    labels = tuple(first + i % 15 for i in range(150))
    path = write_vegas(tmp_path / "ave.h5", labels, tuple(range(first, first + 15)))
    with pytest.raises(UserError) as caught:
        ingest_vegas(path, tmp_path / "out")
    told = f"{path} has classes from {first} to {first + 14}, more than the 10 given. Use --classes 15."
    assert str(caught.value) == told
    assert not (tmp_path / "out").exists()
    ingest_vegas(path, tmp_path / "out", num_classes=15)
    assert rows_of(tmp_path / "out", "test")["label"] == list(range(15))


def test_two_files_share_no_videos(tmp_path: Path) -> None:
    out = [tmp_path / name for name in ("vegas", "ave")]
    for folder in out:
        ingest_vegas(write_vegas(tmp_path / f"{folder.name}.h5"), folder, seed=len(folder.name))
    assert check_datasets(out).between == ()


def test_a_large_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vadv_dist.data.readers import hdf5

    path = write_vegas(tmp_path / "v.h5")
    whole = ingest_vegas(path, tmp_path / "whole").fingerprint
    monkeypatch.setattr(hdf5, "PIECE_BYTES", 7 * 6 * 4)
    assert ingest_vegas(path, tmp_path / "pieces").fingerprint == whole


def change(path: Path, name: str, values: Any) -> Path:
    with h5py.File(path, "a") as file:
        del file[name]
        if values is not None:
            file[name] = values
    return path


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("audio_test", None, "has no 'audio_test' (it has: audio_train, lab_test"),
        ("audio_test", np.zeros((9, 4)), "audio_test of shape [9, 4], expected [10, 4]"),
        ("audio_test", np.zeros((10, 5)), "audio_test of shape [10, 5], expected [10, 4]"),
        ("visual_train", np.zeros(60), "visual_train of shape [60], expected numbers of shape [R, D]"),
        ("lab_test", np.zeros((10, 3)), "lab_test of shape [10, 3], expected 10 columns. Check --classes."),
        ("lab_test", np.arange(1, 11), "has classes from 0 to 10, more than the 10 given. Use --classes 11."),
        ("lab_test", [b"dog"] * 10, "expected numbers of shape [R], [R, 1] or [R, C]"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, name: str, values: Any, message: str) -> None:
    path = change(write_vegas(tmp_path / "v.h5"), name, values)
    with pytest.raises(UserError) as caught:
        ingest_vegas(path, tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "--classes is 1, expected a number from 2 to 10,000"),
        ({"num_classes": 20_000}, "--classes is 20000, expected a number from 2 to 10,000"),
        ({"class_names": ["a"]}, "--class-names has 1 names for 10 classes"),
        ({"class_names": [*"abcdefghi", "a"]}, "--class-names has 'a' more than once"),
        ({"valid_fraction": 1.0}, "--valid-fraction is 1"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ingest_vegas(write_vegas(tmp_path / "v.h5"), tmp_path / "out", **options)

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vadv_dist.data.columns import all_finite
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.windows import to_window
from vadv_dist.errors import UserError
from vadv_dist.storage import sha256_file

VISUAL = FeatureSpec((2, 1, 4))


def clip(number: int, **changes) -> Clip:
    visual = np.full(VISUAL.shape, number, np.float16)
    facts = {
        "clip_id": f"c{number}",
        "video_id": f"v{number // 3}",
        "text": "a few words " * (number % 4 + 1),
        "label": (number % 7) - 3.0,
        "source": "test",
        "features": {"visual": None if number % 5 == 4 else visual},
    }
    return Clip(**{**facts, **changes})


def write(path: Path, clips: list[Clip], shard_rows: int = 4) -> Dataset:
    with DatasetWriter(
        path, features={"visual": VISUAL}, label=LabelSpec(), provenance={}, shard_rows=shard_rows
    ) as writer:
        for one in clips:
            writer.write("train", one)
    return Dataset.open(path)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write(tmp_path / "data", [clip(i) for i in range(10)])


def window(dataset: Dataset, features: tuple[str, ...] = ("visual",)):
    reader = ShardReader(dataset, features)
    return to_window([reader.read(shard) for shard in dataset.split("train")], reader.specs)


def test_rows_are_read_as_they_were_written(dataset: Dataset) -> None:
    read = window(dataset)
    assert read.clip_id == [f"c{i}" for i in range(10)]
    np.testing.assert_array_equal(read.label, [(i % 7) - 3.0 for i in range(10)])
    np.testing.assert_array_equal(read.num_words, [3 * (i % 4 + 1) for i in range(10)])
    column = read.features["visual"]
    np.testing.assert_array_equal(column.present, [i % 5 != 4 for i in range(10)])
    rows = np.array([9, 0, 4, 7, 3])
    taken = column.take(rows)
    np.testing.assert_array_equal(taken[:, 0, 0, 0], [0, 0, 0, 7, 3])  # rows 9 and 4 lack the feature
    assert taken.dtype == np.float16
    assert len(column.chunks) == 3  # joined without copying


def test_the_manifest_counts_missing_features(dataset: Dataset) -> None:
    shards = dataset.split("train")
    assert [shard.rows for shard in shards] == [4, 4, 2]
    assert sum(shard.rows_lacking(["visual"]) for shard in shards) == 2
    assert sum(shard.rows_lacking(["face"]) for shard in shards) == 0


def tamper(dataset: Dataset, change) -> ShardReader:
    """Rewrite the first shard's table and declare its new hash, as a buggy writer would."""
    path = dataset.root / "train" / "00000.parquet"
    pq.write_table(change(pq.read_table(path)), path, compression="none")
    raw = json.loads((dataset.root / "dataset.json").read_text())
    raw["splits"]["train"]["shards"][0] |= {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    (dataset.root / "dataset.json").write_text(json.dumps(raw))
    return ShardReader(Dataset.open(dataset.root), ("visual",))


def replace_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)


def tensors(values: np.ndarray) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["text"]), "has no column 'text'"),
        (lambda t: t.rename_columns([{"visual": "video"}.get(n, n) for n in t.schema.names]), "has no column 'visual'"),
        (
            lambda t: replace_column(t, "visual", tensors(np.zeros((4, 2, 1, 3), np.float16))),
            r"'visual' has type tensors of shape \[2, 1, 3\].*expected tensors of shape \[2, 1, 4\].*use_visual: false",
        ),
        (
            lambda t: replace_column(t, "visual", tensors(np.full((4, 2, 1, 4), np.nan, np.float16))),
            "row 0 has NaN or infinity in visual",
        ),
        (lambda t: replace_column(t, "visual", pa.array([1, 2, 3, 4])), "expected tensors of shape"),
        (lambda t: replace_column(t, "label", pa.array([0, np.inf, 0, 0], pa.float32())), "row 1 has label inf"),
        (lambda t: replace_column(t, "label", pa.array(["a"] * 4)), "column 'label' has type string, expected float"),
        (lambda t: replace_column(t, "text", pa.array([None, "b", "c", "d"])), "column 'text' is null in 1 of 4 rows"),
        (lambda t: t.slice(0, 3), "has 3 rows, but dataset.json declares 4"),
    ],
)
def test_a_shard_that_does_not_match_the_manifest_is_refused(dataset: Dataset, change, message: str) -> None:
    reader = tamper(dataset, change)
    with pytest.raises(UserError, match=message):
        reader.read(reader.dataset.split("train")[0])


def test_a_truncated_shard_is_refused_by_its_size(dataset: Dataset) -> None:
    path = dataset.root / "train" / "00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"00001.parquet has .* bytes, but dataset.json declares"):
        window(dataset)


def test_a_changed_shard_is_refused_by_its_hash(dataset: Dataset) -> None:
    path = dataset.root / "train" / "00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="SHA-256"):
        window(dataset)


def test_a_missing_shard_is_named(dataset: Dataset) -> None:
    (dataset.root / "train" / "00002.parquet").unlink()
    with pytest.raises(UserError, match=r"00002.parquet is missing"):
        window(dataset)


def test_a_missing_feature_is_named_with_advice(dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"no face features \(it has: visual\).*teacher.use_face: false"):
        ShardReader(dataset, ("visual", "face"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "  "}, "'c1' has an empty text"),
        ({"label": 3.5}, r"label 3.5, expected a number in \[-3, 3\]"),
        ({"label": float("nan")}, "label nan"),
        (
            {"features": {"visual": np.zeros((2, 1, 5))}},
            r"visual of shape \[2, 1, 5\], but the data set declares \[2, 1, 4\]",
        ),
        ({"features": {"visual": np.full((2, 1, 4), 1e6)}}, "NaN or infinity in visual"),
    ],
)
def test_an_invalid_clip_is_refused_and_leaves_nothing_behind(tmp_path: Path, changes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write(tmp_path / "bad", [clip(0), clip(1, **changes)])
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_data_set_is_not_a_data_set(dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(dataset.root, tmp_path / "partial")
    (tmp_path / "partial" / "dataset.json").unlink()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is a file, so it is not a data set"):
        Dataset.open(tmp_path / "file")
    with pytest.raises(UserError, match=r"has no dataset.json"):
        Dataset.open(tmp_path / "partial")


def test_an_existing_folder_is_not_overwritten(dataset: Dataset) -> None:
    with pytest.raises(UserError, match="already exists"):
        write(dataset.root, [clip(0)])


def test_shard_paths_outside_the_data_set_are_refused(dataset: Dataset) -> None:
    raw = json.loads((dataset.root / "dataset.json").read_text())
    raw["splits"]["train"]["shards"][0]["path"] = "../../etc/passwd"
    (dataset.root / "dataset.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="is outside the data set"):
        Dataset.open(dataset.root)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite_detects_nan_and_infinity(dtype, bad: float) -> None:
    values = np.random.default_rng(0).normal(size=(7, 11)).astype(dtype)
    assert all_finite(values)
    values[3, 4] = bad
    assert not all_finite(values)

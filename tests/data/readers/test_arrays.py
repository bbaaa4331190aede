"""Arrays of a table: layout, rows, types and error messages."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from csv_files import IDS, refusal, table_of, write_csv

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.table import ingest_table


@pytest.mark.parametrize(
    ("feature", "shape", "stored"),
    [
        ("visual", (4, 5), [1, 1, 5]),
        ("visual", (4, 3, 5), [3, 1, 5]),
        ("visual", (4, 3, 2, 5), [3, 2, 5]),
        ("face", (4, 8), [1, 8]),
        ("face", (4, 6, 8), [6, 8]),
        ("audio", (4, 7), [7]),
        ("audio", (4, 9, 7), [9, 7]),
    ],
)
def test_arrays_get_the_layout_of_their_feature(
    tmp_path: Path, feature: str, shape: tuple[int, ...], stored: list[int]
) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.savez(tmp_path / "f.npz", id=IDS[::-1], x=values[::-1])  # rows are found by id, not by position
    summary = ingest_table(write_csv(tmp_path / "c.csv"), tmp_path / "out", arrays=[f"{tmp_path}/f.npz:x={feature}"])
    assert summary.features == {feature: stored}
    dataset = Dataset.open(tmp_path / "out")
    column = pq.read_table(dataset.shard_path(dataset.split("test")[0]))[feature].combine_chunks()
    np.testing.assert_array_equal(column.to_numpy_ndarray()[0], values[3].reshape(stored).astype(np.float16))


def test_missing_rows_are_refused_unless_allowed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv")
    np.savez(tmp_path / "f.npz", id=[IDS[0], *IDS[2:]], x=np.ones((3, 5), np.float32))
    arrays = [f"{tmp_path}/f.npz:x=visual"]
    assert "line 3: 1 of 4 clips ('a_2') have no row in" in refusal(path, tmp_path, arrays=arrays)
    summary = ingest_table(path, tmp_path / "out", arrays=arrays, allow_missing_arrays=True)
    assert summary.missing == {"visual": 1}
    assert Dataset.open(tmp_path / "out").split("train")[0].missing == {"visual": 1}


def test_float32_stores_values_beyond_float16(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv")
    np.savez(tmp_path / "f.npz", id=IDS, x=np.array([[1.0], [1e5], [2.0], [3.0]], np.float32))
    arrays = [f"{tmp_path}/f.npz:x=audio"]
    assert (
        "x: the row of id 'a_2' has 100000, which exceeds the range of float16 (65504). Use --dtype float32."
        in refusal(path, tmp_path, arrays=arrays)
    )
    summary = ingest_table(path, tmp_path / "out", arrays=arrays, dtype="float32")
    assert summary.features == {"audio": [1]}
    assert table_of(tmp_path / "out", "train")["audio"] == [[1.0], [1e5]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"id": IDS, "y": np.ones((4, 2))}, "has no 'x' array (arrays: id, y)"),
        ({"x": np.ones((4, 2))}, "has no 'id' array, which holds the clip id of each row"),
        ({"id": IDS[:3], "x": np.ones((4, 2))}, "has 4 rows, but 'id' in that file has shape [3], expected [4]"),
        ({"id": ["a_1", "a_1", "b_1", "c_1"], "x": np.ones((4, 2))}, "has id 'a_1' more than once"),
        (
            {"id": ["w", "x", "y", "z"], "x": np.ones((4, 2))},
            "and 4 of 4 ids ('w', 'x', 'y', …) of its 'id' array are no clips of the table",
        ),
        ({"id": IDS, "x": np.array(1.0)}, "has shape [], expected [R, D] or [R, T, D] or [R, T, N, D] for visual"),
        ({"id": IDS, "x": np.ones(4)}, "has shape [4], expected [R, D] or [R, T, D] or [R, T, N, D] for visual"),
        ({"id": IDS, "x": np.array(["a"] * 4)[:, None]}, "expected numbers"),
        ({"id": IDS, "x": np.array([[1.0], [np.nan], [1], [1]])}, "NaN or infinity in the row of id 'a_2'"),
        ({"id": IDS, "x": np.array([[1.0], [1], [-np.inf], [1]])}, "NaN or infinity in the row of id 'b_1'"),
        ({"id": IDS, "x": np.array([{}] * 4)}, "pickled objects, which are not loaded"),
        ({"id": np.array(IDS, object), "x": np.ones((4, 2))}, "pickled objects, which are not loaded"),
    ],
)
def test_invalid_arrays_are_refused(tmp_path: Path, arrays: dict, message: str) -> None:
    path = write_csv(tmp_path / "c.csv")
    np.savez(tmp_path / "f.npz", **arrays)
    assert message in refusal(path, tmp_path, arrays=[f"{tmp_path}/f.npz:x=visual"])


def test_array_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "c.csv")
    for name, content in (
        ("text.npz", b"hello"),
        ("pickle.npz", pickle.dumps({"id": IDS})),
        ("empty.npz", b""),
        ("cut.npz", b"PK\x03\x04cut"),
    ):
        (tmp_path / name).write_bytes(content)
        assert "is not an .npz file" in refusal(path, tmp_path, arrays=[f"{tmp_path}/{name}:x=visual"])
    np.save(tmp_path / "single.npy", np.ones(4))
    assert "is not an .npz file" in refusal(path, tmp_path, arrays=[f"{tmp_path}/single.npy:x=visual"])


def test_a_damaged_array_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "f.npz", id=IDS, x=np.random.default_rng(0).normal(size=(4, 500)))
    damaged = bytearray((tmp_path / "f.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "f.npz").write_bytes(damaged)
    assert "is not a readable .npz file" in refusal(
        write_csv(tmp_path / "c.csv"), tmp_path, arrays=[f"{tmp_path}/f.npz:x=visual"]
    )

"""Tensor columns as numpy views."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vadv_dist.data.columns import tensor_chunks
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter

SPEC = FeatureSpec((3, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A shard of five clips, the second without a face."""
    with DatasetWriter(tmp_path / "d", features={"face": SPEC}, label=LabelSpec(), provenance={}) as writer:
        for i in range(5):
            face = None if i == 1 else np.full(SPEC.shape, i, np.float16)
            writer.write("train", Clip(f"a_{i}", "a", "hi", 0.0, "s", {"face": face}))
    dataset = Dataset.open(tmp_path / "d")
    return dataset.shard_path(dataset.split("train")[0])


def test_present_and_missing_rows_are_read(path: Path) -> None:
    [(values, present)] = tensor_chunks(pq.read_table(path, partitioning=None)["face"], SPEC)
    assert present.tolist() == [True, False, True, True, True]
    assert values.shape == (5, 3, 2)
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values[present][:, 0, 0], [0, 2, 3, 4])


@pytest.mark.parametrize(("start", "rows"), [(0, 5), (2, 3), (1, 1), (5, 0)])
def test_slices_of_a_column_keep_their_rows(path: Path, start: int, rows: int) -> None:
    column = pq.read_table(path, partitioning=None)["face"].slice(start, rows)
    parts = tensor_chunks(column, SPEC)
    first = [float(row[0, 0]) for values, present in parts for row, has in zip(values, present, strict=True) if has]
    assert first == [i for i in range(start, start + rows) if i != 1]


def test_a_shard_without_values_is_read(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d", features={"face": SPEC}, label=LabelSpec(), provenance={}) as writer:
        for i in range(3):
            writer.write("train", Clip(f"a_{i}", "a", "hi", 0.0, "s", {}))
    [(values, present)] = tensor_chunks(
        pq.read_table(tmp_path / "d/train/00000.parquet", partitioning=None)["face"], SPEC
    )
    assert values.shape == (3, 3, 2)
    assert not present.any()

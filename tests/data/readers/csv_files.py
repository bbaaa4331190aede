"""A small CSV table, the data set made from it, and the message if it is refused."""

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.errors import UserError

HEADER = ["id", "video_id", "split", "label", "text"]
ROWS = [
    ["a_1", "a", "train", "1.5", "it was good"],
    ["a_2", "a", "train", "-0.2", "it was, well, dull"],
    ["b_1", "b", "val", "-3", "awful"],
    ["c_1", "c", "TEST", "3.0", "superb"],
]
IDS = [row[0] for row in ROWS]


def write_csv(path: Path, rows: list[list[str]] = ROWS, header: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def changed(row: int, column: str, value: str) -> list[list[str]]:
    rows = [list(cells) for cells in ROWS]
    rows[row][HEADER.index(column)] = value
    return rows


def table_of(out: Path, split: str) -> dict[str, list]:
    dataset = Dataset.open(out)
    return pq.read_table(dataset.shard_path(dataset.split(split)[0])).to_pydict()


def refusal(path: Path, place: Path, **options: object) -> str:
    """The message with which a table is refused; also checks that no output is left behind."""
    before = sorted(place.iterdir())
    with pytest.raises(UserError) as caught:
        ingest_table(path, place / "out", **options)  # type: ignore[arg-type]  # options vary by case
    assert sorted(place.iterdir()) == before
    return str(caught.value)

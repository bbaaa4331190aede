"""Columns that are added to the rows of a table when it is copied."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa

# New columns by name, [R] each: fp32, NaN where a row has no value, or strings, None where it has none.
Added = Mapping[str, npt.NDArray[Any]]


def arrow_type(values: npt.NDArray[Any]) -> pa.DataType:
    """The type of a new column in a Parquet file."""
    return pa.float32() if values.dtype.kind == "f" else pa.string()


def as_text(value: Any) -> str:
    """The shortest decimal number that gives the same float32, or a string; empty for NaN and None."""
    if value is None or isinstance(value, str):
        return value or ""
    return "" if math.isnan(value) else str(value)


def as_json(value: Any) -> float | str | None:
    """The value as the shortest decimal number that gives the same float32, or as a string."""
    text = as_text(value)
    if isinstance(value, str):
        return text
    return float(text) if text else None


def rows_of(added: Added) -> Iterator[tuple[Any, ...]]:
    """The new values of each row."""
    return zip(*added.values(), strict=True)


def write_delimited(
    target: Path, header: Sequence[str], rows: Iterable[Sequence[str]], added: Added, delimiter: str
) -> None:
    """Write a CSV file in UTF-8: cells as they are, then the new ones."""
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow([*header, *added])
        writer.writerows([*row, *map(as_text, values)] for row, values in zip(rows, rows_of(added), strict=True))


def write_parquet(target: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], added: Added) -> None:
    """Write a Parquet file: columns as they are, then the new ones."""
    import pyarrow.parquet as pq

    for name, values in added.items():
        schema = schema.append(pa.field(name, arrow_type(values)))
    with pq.ParquetWriter(target, schema) as writer:
        done = 0
        for batch in batches:
            end = done + batch.num_rows
            new = [pa.array(values[done:end], from_pandas=True) for values in added.values()]
            writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *new], schema=schema))
            done = end


def batches_of(texts: Iterable[str], name: str, rows: int) -> Iterator[pa.RecordBatch]:
    """One column of texts in batches of a number of rows."""
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == rows:
            yield pa.record_batch([pa.array(chunk, pa.string())], names=[name])
            chunk = []
    if chunk:
        yield pa.record_batch([pa.array(chunk, pa.string())], names=[name])

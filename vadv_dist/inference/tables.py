"""Files of rows with a column of texts: read in pieces, copied unchanged, with columns added at the end."""

import csv
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vadv_dist.errors import UserError, did_you_mean, first_line
from vadv_dist.formats.csv_lines import bounded_lines
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import Location

T = TypeVar("T")
# New columns by name, [R] each: fp32, NaN where a row has no value, or strings, None where it has none.
Columns = Mapping[str, npt.NDArray[Any]]

CHUNK_ROWS = 16384


class Table(ABC):
    """A file of rows with a column of texts.

    Args:
        path: the file.
        text_column: its column of texts.
        new_columns: the columns that `write_with` adds.
    Attributes:
        outputs: suffixes of the files that `write_with` can write.
    Raises:
        UserError: the file is unreadable, lacks the text column, or already has a new column.
    """

    outputs: tuple[str, ...]

    def __init__(self, path: Path, text_column: str, new_columns: Sequence[str] = ()) -> None:
        self.path, self.text_column, self.new_columns = path, text_column, new_columns
        columns = self.columns()
        if text_column not in columns:
            raise UserError(
                f"{path} has no column {text_column!r} (it has: {', '.join(columns)})."
                f"{did_you_mean(text_column, columns)} Set the column of the texts with --text-column."
            )
        for name in new_columns:
            if name in columns:
                raise UserError(f"{path} already has a column {name!r}, the name of a column to be added. Rename it.")

    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns, in the file's order."""

    @abstractmethod
    def strings(self, column: str) -> Iterator[list[str]]:
        """Read a column of strings in pieces of at most `CHUNK_ROWS`; a null is an empty string."""

    def texts(self) -> Iterator[list[str]]:
        """Read the text column; see `strings`."""
        return self.strings(self.text_column)

    @abstractmethod
    def write_with(self, path: Path, columns: Columns, suffix: str) -> None:
        """Write the whole table to `path`, with `columns` as its last; NaN becomes a null or an empty cell.

        In text, values have enough digits to restore the same float32. The format is that of `suffix`, one of
        `outputs`.
        """

    def check_texts(self, *, skip_empty: bool = False) -> tuple[int, int]:
        """Read all texts once; return the number of rows and of empty ones.

        Raises:
            UserError: a text is empty (with its row) and these are not skipped.
        """
        row = empty = 0
        for row, text in enumerate(itertools.chain.from_iterable(self.texts()), 1):
            if text.strip():
                continue
            empty += 1
            if not skip_empty:
                raise UserError(
                    f"{self.path}: row {row} has an empty {self.text_column!r} (rows are counted from 1, without the "
                    "header). Add its words, remove the row, or leave such rows without a prediction (--skip-empty)."
                )
        return row, empty


class CsvTable(Table):
    """Comma-separated values in UTF-8 with a header; cells are copied as strings."""

    outputs: tuple[str, ...] = (".csv",)
    delimiter = ","

    def columns(self) -> list[str]:
        header = next(self._lines(), None)
        if not header:
            raise UserError(f"{self.path} is empty. Its first line must name the columns.")
        return header

    def strings(self, column: str) -> Iterator[list[str]]:
        position = self.columns().index(column)
        rows = self._rows()
        while chunk := [row[position] for row in itertools.islice(rows, CHUNK_ROWS)]:
            yield chunk

    def write_with(self, path: Path, columns: Columns, suffix: str) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=self.delimiter, lineterminator="\n")
            writer.writerow([*self.columns(), *columns])
            cells = zip(*columns.values(), strict=True)
            writer.writerows([*row, *map(as_text, values)] for row, values in zip(self._rows(), cells, strict=True))

    def _rows(self) -> Iterator[list[str]]:
        lines = self._lines()
        width = len(next(lines))
        for number, row in enumerate((line for line in lines if line), 1):
            if len(row) != width:
                raise UserError(
                    f"{self.path}: row {number} has {len(row)} cells, but the header has {width}. "
                    f"Fix the row; a cell that contains {self.delimiter!r} needs quotes."
                )
            yield row

    def _lines(self) -> Iterator[list[str]]:
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                yield from csv.reader(bounded_lines(file, self.path), delimiter=self.delimiter, strict=True)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{self.path} cannot be read as CSV in UTF-8: {error}. Convert it.") from None


class TsvTable(CsvTable):
    """Tab-separated values, otherwise like `CsvTable`."""

    outputs = (".tsv",)
    delimiter = "\t"


class ParquetTable(Table):
    """A Parquet file; columns keep their types."""

    outputs = (".parquet",)

    def columns(self) -> list[str]:
        with self._open() as file:
            return list(file.schema.names)

    def strings(self, column: str) -> Iterator[list[str]]:
        with self._open() as file:
            kind = file.schema.field(column).type
            value_kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(value_kind) or pa.types.is_large_string(value_kind)):
                raise UserError(f"{self.path}: column {column!r} has {kind}, expected strings.")
            for batch in self._batches(file, [column]):
                yield [text or "" for text in batch.column(0).to_pylist()]

    def write_with(self, path: Path, columns: Columns, suffix: str) -> None:
        with self._open() as file:
            schema = file.schema
            for name in columns:
                schema = schema.append(pa.field(name, arrow_type(columns[name])))
            with pq.ParquetWriter(path, schema) as writer:
                done = 0
                for batch in self._batches(file):
                    end = done + batch.num_rows
                    added = [pa.array(values[done:end], from_pandas=True) for values in columns.values()]
                    writer.write_batch(pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema))
                    done = end

    @contextmanager
    def _open(self) -> Iterator[BoundedParquet]:
        with self._readable():
            file = BoundedParquet(pa.memory_map(str(self.path)), self.path)
            file.schema.names  # noqa: B018  # decodes the names
        with file:
            yield file

    def _batches(self, file: BoundedParquet, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read pieces and validate their contents."""
        batches = file.batches(CHUNK_ROWS, columns)
        while True:
            with self._readable():
                batch = next(batches, None)
                if batch is not None:
                    batch.validate(full=True)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except MemoryError:  # Arrow's own is also an ArrowException and says nothing about the file
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of names of columns
            reason = first_line(error).rstrip(".")
            raise UserError(f"{self.path} cannot be read as Parquet: {reason}. Write it again.") from None


def arrow_type(values: npt.NDArray[Any]) -> pa.DataType:
    """The type of a new column in a Parquet file."""
    return pa.float32() if values.dtype.kind == "f" else pa.string()


def as_text(value: Any) -> str:
    """The shortest decimal number that gives the same float32, or a string; empty for NaN and None."""
    if value is None or isinstance(value, str):
        return value or ""
    return "" if math.isnan(value) else str(value)


def kind_by_suffix(path: Location, kinds: Mapping[str, type[T]]) -> type[T]:
    """Determine the format of a file from its suffix, without opening it.

    Raises:
        UserError: another suffix, or no such file.
    """
    kind = kinds.get(path.suffix.lower())
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give a {either(kinds)} file, such as one of those in it.")
    if kind is None:
        raise UserError(f"{path} {ending(path)}, expected {either(kinds)}.")
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file. Give a {either(kinds)} file.")
    return kind


def ending(path: Location) -> str:
    """What a path ends in, as a part of a sentence."""
    return f"ends in {path.suffix!r}" if path.suffix else "has no suffix"


def either(suffixes: Iterable[str]) -> str:
    """Join alternatives: `.csv, .parquet or .npz`."""
    *first, last = suffixes
    return f"{', '.join(first)} or {last}" if first else last

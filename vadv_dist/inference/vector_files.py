"""Files of vectors with ids (CSV, Parquet, npz), read in pieces and checked.

A clip with several vectors, as in the shards of a data set, is represented by their mean, as in training.

Shape letters: R rows of a piece, T frames, N vectors per frame, D width of a vector.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vadv_dist.errors import UserError, did_you_mean, first_line
from vadv_dist.formats.csv_lines import csv_lines, decimal_comma, number_of
from vadv_dist.formats.npz import NpzFile
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.inference.suffixes import kind_by_suffix
from vadv_dist.storage import Location

# Rows of a piece: at most this many, and fewer of wide vectors.
_PIECE_ROWS = 4096
_PIECE_VALUES = 1 << 22

ID_COLUMNS = ("clip_id", "id")
Piece = tuple[list[str], npt.NDArray[np.float32]]


class VectorFile(ABC):
    """Vectors of one modality, each with an id.

    Args:
        path: the file, on this machine.
        vector: name of the vectors: a column of lists, an array [R, D], or columns `<name>_0`, `<name>_1`, ….
        id_column: name of the ids; None takes the first of `ID_COLUMNS` that exists.
    Raises:
        UserError: the file is unreadable, or has no such column.
    """

    def __init__(self, path: Path, vector: str, id_column: str | None = None) -> None:
        self.path, self.vector = path, vector
        columns = self.columns_of(path)
        wanted = ID_COLUMNS if id_column is None else (id_column,)
        found = [name for name in wanted if name in columns]
        if not found:
            named = " or ".join(map(repr, wanted))
            raise UserError(
                f"{path} has no column {named} of ids ({_listed(columns)}). Name their column with --id-column."
            )
        self.id_column = found[0]
        self.numbered = numbered_columns(columns, vector)
        if vector not in columns and not self.numbered:
            raise UserError(
                f"{path} has neither a column {vector!r} nor columns '{vector}_0', '{vector}_1', … of {vector} vectors "
                f"({_listed(columns)}).{did_you_mean(vector, columns)}"
            )
        missing = [name for name in self.numbered if name not in columns]
        if missing and vector not in columns:
            raise UserError(f"{path} has {self.numbered[-1]!r} but no column {missing[0]!r}. Add the missing columns.")

    @classmethod
    def has(cls, path: Path, vector: str) -> bool:
        """Whether a file has vectors of this name."""
        columns = cls.columns_of(path)
        return vector in columns or bool(numbered_columns(columns, vector))

    @classmethod
    @abstractmethod
    def columns_of(cls, path: Path) -> list[str]:
        """Names of the columns or arrays of a file."""

    @abstractmethod
    def _pieces(self) -> Iterator[tuple[Sequence[Any], npt.NDArray[np.float32]]]:
        """Ids and vectors [R, D] of each piece."""

    def pieces(self, width: int) -> Iterator[Piece]:
        """Read the file once.

        Args:
            width: D, the width that vectors must have.
        Raises:
            UserError: another width, a value that is not finite, an empty id, or no rows.
        """
        rows = 0
        for ids, vectors in self._pieces():
            if vectors.shape[1] != width:
                raise UserError(
                    f"{self.path} has {self.vector} vectors of width {vectors.shape[1]}, but the student reads width "
                    f"{width}. Give the features that it was trained on."
                )
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if bad.size:
                row = int(bad[0])
                raise UserError(
                    f"{self.path}: row {rows + row + 1} (id {str(ids[row])[:60]!r}) has NaN, infinity or no number in "
                    f"its {self.vector} vector. Fix the row, or remove it."
                )
            names = ["" if name is None else str(name) for name in ids]
            if "" in names:
                raise UserError(
                    f"{self.path}: row {rows + names.index('') + 1} has no id in {self.id_column!r}. Add one."
                )
            rows += len(names)
            yield names, vectors
        if not rows:
            raise UserError(f"{self.path} has no rows. Give at least one vector.")


class CsvVectors(VectorFile):
    """Comma-separated values in UTF-8 with a header, and a column for each value."""

    @classmethod
    def columns_of(cls, path: Path) -> list[str]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv_lines(file, path), (0, []))[1]
        if not header:
            raise UserError(f"{path} is empty. Its first line must name the columns.")
        twice = next((name for name, count in Counter(header).items() if count > 1), None)
        if twice is not None:
            raise UserError(f"{path} has two columns named {twice!r}. Rename one.")
        return header

    def _pieces(self) -> Iterator[tuple[Sequence[Any], npt.NDArray[np.float32]]]:
        if not self.numbered:
            raise UserError(
                f"{self.path}: column {self.vector!r} of a CSV file cannot hold vectors. Write one value per column, "
                f"named '{self.vector}_0', '{self.vector}_1', …, or use Parquet."
            )
        header = self.columns_of(self.path)
        places = [header.index(name) for name in self.numbered]
        id_place = header.index(self.id_column)
        size = _rows_of(len(places))
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            rows = ((line, cells) for line, cells in csv_lines(file, self.path) if cells)
            next(rows)
            while chunk := list(itertools.islice(rows, size)):
                for line, cells in chunk:
                    if len(cells) != len(header):
                        raise UserError(
                            f"{self.path} line {line} has {len(cells)} cells, but the header has {len(header)}. Fix "
                            "the line; a cell that contains a comma needs quotes."
                        )
                texts = [[cells[place] for place in places] for _, cells in chunk]
                with np.errstate(over="ignore"):
                    vectors = self._numbers(texts, [line for line, _ in chunk]).astype(np.float32)
                yield [cells[id_place] for _, cells in chunk], vectors

    def _numbers(self, texts: list[list[str]], lines: list[int]) -> npt.NDArray[np.float64]:
        """Values of some lines, [R, D].

        Raises:
            UserError: a cell is not a number.
        """
        try:
            vectors = np.array(texts, np.float64)
            # Python's numbers may have underscores, and words such as nan.
            if np.isfinite(vectors).all() and not any("_" in text for row in texts for text in row):
                return vectors
        except ValueError:
            pass
        for line, row in zip(lines, texts, strict=True):
            for name, text in zip(self.numbered, row, strict=True):
                if math.isnan(number_of(text)):
                    raise UserError(
                        f"{self.path} line {line}: {name!r} is {text[:40]!r}, expected a number.{decimal_comma(text)} "
                        "Fix the line, or remove it."
                    )
        return np.array([[number_of(text) for text in row] for row in texts])


class ParquetVectors(VectorFile):
    """A Parquet file with a column of lists or tensors, or a column for each value."""

    @classmethod
    def columns_of(cls, path: Path) -> list[str]:
        with _parquet(path) as file:
            return list(file.schema.names)

    def _pieces(self) -> Iterator[tuple[Sequence[Any], npt.NDArray[np.float32]]]:
        with _parquet(self.path) as file:
            whole = self.vector in file.schema.names
            names = [self.vector] if whole else self.numbered
            kinds = {name: file.schema.field(name).type for name in names}
            for name, kind in kinds.items():
                _require_numbers(kind, f"{self.path}: column {name!r}", lists=whole)
            width = len(names) if not whole else _declared_width(kinds[self.vector])
            batches = file.batches(_rows_of(width), [self.id_column, *names])
            while True:
                with _readable(self.path):
                    batch = next(batches, None)
                    if batch is not None:
                        batch.validate(full=True)
                if batch is None:
                    return
                if not batch.num_rows:
                    continue
                ids = batch.column(0).to_pylist()
                if whole:
                    yield ids, self._lists(batch.column(1), ids)
                else:
                    columns = [column.cast(pa.float32(), safe=False) for column in batch.columns[1:]]
                    yield ids, np.stack([c.to_numpy(zero_copy_only=False) for c in columns], axis=1)

    def _lists(self, column: pa.Array, ids: Sequence[Any]) -> npt.NDArray[np.float32]:
        storage = column.storage if isinstance(column, pa.ExtensionArray) else column
        if storage.null_count:
            row = pc.index(storage.is_null(), True).as_py()
            raise UserError(
                f"{self.path}: id {str(ids[row])[:60]!r} has no {self.vector} vector. Remove rows without one."
            )
        values = storage.flatten()
        if isinstance(column.type, pa.FixedShapeTensorType) and not values.null_count:
            tensors = np.asarray(column.to_numpy_ndarray(), np.float32)  # [R, D], [R, T, D] or [R, T, N, D]
            return tensors.reshape(len(tensors), -1, tensors.shape[-1]).mean(axis=1)
        widths = pc.list_value_length(storage)
        least, most = pc.min(widths).as_py(), pc.max(widths).as_py()
        if least != most:
            raise UserError(
                f"{self.path} has {self.vector} vectors of width {least} and of width {most}. Make them equal."
            )
        return values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False).reshape(len(storage), most)


class NpzVectors(VectorFile):
    """An `.npz` file with an array of ids [R] and one of vectors [R, D]."""

    @classmethod
    def columns_of(cls, path: Path) -> list[str]:
        with NpzFile(path) as file:
            return list(file.names)

    def _pieces(self) -> Iterator[tuple[Sequence[Any], npt.NDArray[np.float32]]]:
        if self.vector not in self.columns_of(self.path):
            raise UserError(f"{self.path} has no {self.vector!r} array. Save the vectors as one array [R, D].")
        with NpzFile(self.path) as file:
            ids = file.array(self.id_column)
            vectors = file.array(self.vector)
            where = f"{self.path}: {self.vector!r}"
            if vectors.dtype.kind not in "fiu":
                raise UserError(f"{where} has {vectors.dtype} values, expected numbers.")
            if not 2 <= vectors.ndim <= 4 or 0 in vectors.shape[1:]:
                raise UserError(
                    f"{where} has shape {list(vectors.shape)}, expected one vector per clip [R, D], or several "
                    "[R, T, D] or [R, T, N, D]."
                )
            if ids.shape != vectors.shape[:1]:
                raise UserError(
                    f"{where} has {len(vectors)} rows, but {self.id_column!r} has shape {list(ids.shape)}, expected "
                    f"[{len(vectors)}]."
                )
        size = _rows_of(math.prod(vectors.shape[1:]))
        for start in range(0, len(vectors), size):
            names = [_text(name) for name in ids[start : start + size].tolist()]
            with np.errstate(over="ignore"):
                piece = np.asarray(vectors[start : start + size], np.float32)
            yield names, piece.reshape(len(piece), -1, piece.shape[-1]).mean(axis=1)


_KINDS: dict[str, type[VectorFile]] = {".csv": CsvVectors, ".parquet": ParquetVectors, ".npz": NpzVectors}


def vector_file_kind(path: Location) -> type[VectorFile]:
    """Determine the format of a file of vectors; see `kind_by_suffix`."""
    return kind_by_suffix(path, _KINDS)


@contextmanager
def _parquet(path: Path) -> Iterator[BoundedParquet]:
    with _readable(path):
        file = BoundedParquet(pa.memory_map(str(path)), path)
        file.schema.names  # noqa: B018  # decodes the names
    with file:
        yield file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:  # Arrow's own is also an ArrowException and says nothing about the file
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {first_line(error).rstrip('.')}. Write it again.") from None


def numbered_columns(columns: Sequence[str], vector: str) -> list[str]:
    """The names `<vector>_0` to `<vector>_<n>`, where n is the highest number among the columns; empty without one."""
    prefix = f"{vector}_"
    numbers = [int(name.removeprefix(prefix)) for name in columns if _is_numbered(name, prefix)]
    return [f"{prefix}{number}" for number in range(max(numbers, default=-1) + 1)]


def _is_numbered(name: str, prefix: str) -> bool:
    digits = name.removeprefix(prefix)
    return name.startswith(prefix) and digits.isdecimal() and digits.isascii() and len(digits) <= 6


def _rows_of(width: int) -> int:
    return max(1, min(_PIECE_ROWS, _PIECE_VALUES // max(1, width)))


def _require_numbers(kind: pa.DataType, where: str, *, lists: bool) -> None:
    """Check the type of a column: numbers, or lists of numbers."""
    inner = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    is_list = pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner)
    value = inner.value_type if is_list else inner
    if is_list != lists or not (pa.types.is_floating(value) or pa.types.is_integer(value)):
        raise UserError(f"{where} has {kind}, expected {'lists of numbers' if lists else 'numbers'}.")


def _declared_width(kind: pa.DataType) -> int:
    inner = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return int(inner.list_size) if pa.types.is_fixed_size_list(inner) else 1024


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in columns[:12])
    return f"it has: {shown}{', …' if len(columns) > 12 else ''}"

"""Read untrusted Parquet files, whose size in memory is determined before decoding.

A few hundred bytes of Parquet can expand to gigabytes: a dictionary stores a long text once and each row refers to it,
runs of equal values take a few bits, nulls of a fixed size take none, and pages are compressed. Therefore the header of
every page is read first (`parquet_pages`); texts are read as dictionaries and expanded only after their lengths are
known.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vadv_dist.errors import UserError
from vadv_dist.formats.parquet_pages import Chunk, PageError, chunk_bytes, footer_chunks

# A file of a few kilobytes may need this much; a larger one several times its own size.
_FREE_BYTES = 256 << 20
_GROWTH = 4
# The footer is parsed to objects of several times its size. Those of data sets take a few kilobytes.
_MAX_FOOTER_BYTES = 8 << 20
_BATCH_BYTES = 64 << 20
_LEVEL_BYTES = 4
_TAIL_BYTES = 8  # the footer's length and the magic number


class OversizedError(UserError):
    """A file that would take too much memory.

    Attributes:
        what: description without the file's name.
    """

    def __init__(self, where: object, what: str) -> None:
        super().__init__(f"{where}: {what} Download the file again, or recreate it.")
        self.what = what


class BoundedParquet:
    """A Parquet file opened for reading, used as a context manager; Arrow's errors pass through.

    Args:
        source: the file.
        where: its name, for messages.

    Raises:
        OversizedError: by every method, if decoding the file would exceed the limits.
    """

    def __init__(self, source: pa.NativeFile, where: object) -> None:
        self._source, self._where = source, where
        self._size = int(source.size())
        self.max_bytes = max(_FREE_BYTES, _GROWTH * self._size)
        source.seek(max(0, self._size - _TAIL_BYTES))
        footer = int.from_bytes(source.read(4), "little")
        if footer > _MAX_FOOTER_BYTES and footer < self._size:
            raise OversizedError(where, f"Its footer has {footer:,} bytes, but the limit is {_MAX_FOOTER_BYTES:,}.")
        self._footer_bytes = footer
        source.seek(0)
        self._file = pq.ParquetFile(source)
        self.schema: pa.Schema = self._file.schema_arrow
        self.metadata: pq.FileMetaData = self._file.metadata
        if len(set(self.schema.names)) < len(self.schema.names):
            raise pa.ArrowInvalid("it has two columns with one name")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def num_rows(self) -> int:
        """Number of rows declared in the footer, for the file or for its row groups, whichever is larger."""
        groups = sum(self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups))
        return int(max(self.metadata.num_rows, groups))

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Decode some or all columns."""
        names = list(self.schema.names if columns is None else columns)
        taken = 0
        for name in names:
            taken += self._bytes_of(name)
            self._require_within(taken, name)
        return self._expand(self._texts_as_dictionaries(names).read(columns=names, use_threads=False), taken)

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Decode up to the given number of rows at a time, fewer if a batch would exceed the limit for a small file."""
        names = list(self.schema.names if columns is None else columns)
        row_bytes = sum(self._bytes_of(name) for name in names) // max(1, self.num_rows)
        rows = max(1, min(rows, _BATCH_BYTES // max(1, row_bytes)))
        for batch in self._texts_as_dictionaries(names).iter_batches(rows, columns=names):
            yield from self._expand(pa.Table.from_batches([batch])).to_batches()

    def _expand(self, table: pa.Table, taken: int = 0) -> pa.Table:
        """Replace dictionaries by their texts, whose size is checked first."""
        for position, name in enumerate(table.column_names):
            column, field = table.column(position), self.schema.field(name)
            taken += _text_bytes(column)
            self._require_within(taken, name)
            if pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(field.type):
                table = table.set_column(position, field, column.cast(field.type))
        return table

    def _texts_as_dictionaries(self, names: Sequence[str]) -> pq.ParquetFile:
        texts = [name for name in names if _is_text(self.schema.field(name).type)]
        self._source.seek(0)
        return pq.ParquetFile(self._source, metadata=self.metadata, read_dictionary=texts)

    def _bytes_of(self, name: str) -> int:
        """Bytes of a decoded column, without expanded dictionaries of texts."""
        taken = 0
        for position in range(self.metadata.num_columns):
            column = self.metadata.schema.column(position)
            if column.path != name and not column.path.startswith(f"{name}."):
                continue
            levels = _LEVEL_BYTES if column.max_definition_level or column.max_repetition_level else 0
            for chunks in self._chunks:
                if position >= len(chunks):
                    raise OversizedError(self._where, f"Column {column.path!r} lacks a chunk.")
                chunk = chunks[position]
                try:
                    total, largest = chunk_bytes(self._source, self._size, chunk, max(0, column.length or 0))
                except PageError as error:
                    raise OversizedError(self._where, f"Column {column.path!r} {error}.") from None
                taken += total + levels * chunk.num_values
                self._require_within(largest, name)
        return max(taken, self.num_rows * _fixed_bytes(self.schema.field(name).type))

    @cached_property
    def _chunks(self) -> list[list[Chunk]]:
        self._source.seek(max(0, self._size - _TAIL_BYTES - self._footer_bytes))
        try:
            return footer_chunks(bytes(self._source.read(self._footer_bytes)))
        except PageError as error:
            raise OversizedError(self._where, f"It {error}.") from None

    def _require_within(self, taken: int, name: str) -> None:
        if taken > self.max_bytes:
            raise OversizedError(
                self._where,
                f"Decoding it would take {taken:,} bytes or more (up to column {name!r}), but the limit for a file of "
                f"{self._size:,} bytes is {self.max_bytes:,}.",
            )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _fixed_bytes(kind: pa.DataType) -> int:
    """Bytes of any row, also of a null."""
    if isinstance(kind, pa.BaseExtensionType):
        return _fixed_bytes(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _fixed_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return sum(_fixed_bytes(kind.field(i).type) for i in range(kind.num_fields))
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:  # not of fixed width
        return 4


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Size of a column's texts if they are in a dictionary, which would be expanded; else 0."""
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return 0
    lengths = [pc.take(pc.binary_length(chunk.dictionary), chunk.indices) for chunk in column.chunks]
    return sum(int(pc.sum(of_chunk).as_py() or 0) for of_chunk in lengths)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read some or all columns of a local Parquet file; Arrow's errors pass through.

    Raises:
        OversizedError: decoding would exceed the limits.
    """
    with pa.memory_map(str(path)) as source, BoundedParquet(source, path) as file:
        return file.read(columns)

"""Parse the footer and the page headers of a Parquet file to find the decoded size of each column chunk.

A column chunk is a sequence of pages, each preceded by a header in Thrift's compact protocol (parquet.thrift,
`PageHeader`). Decoders take sizes from these headers, whatever the footer says. pyarrow does not expose them, and
version 26 terminates the process in C++ (`RowGroupMetaData.column`) if the statistics of a damaged footer are
inconsistent; so the footer's column chunks are read here too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

# parquet.thrift: field numbers of PageHeader, of its three kinds of page, and encodings.
_UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_V2 = 2, 3, 5, 7, 8
_NUM_VALUES = 1
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}
_DELTA_BYTE_ARRAY = 7  # a text may share a prefix with the previous one
# parquet.thrift, `Type`: BOOLEAN, INT32, INT64, INT96, FLOAT, DOUBLE.
_WIDTH = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
# parquet.thrift: fields of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3
_TYPE, _CHUNK_VALUES, _CHUNK_BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 5, 7, 9, 11
_REFERENCE_BYTES = 8  # a text's offset, or its index in a dictionary
_MAX_HEADER_BYTES = 1 << 20
_FIRST_HEADER_BYTES = 256
_MAX_DEPTH = 16
_DAMAGED, _DAMAGED_FOOTER = "has a page whose header is damaged", "has a damaged footer"


class PageError(Exception):
    """Why the pages of a column cannot be measured."""


@dataclass(frozen=True)
class Chunk:
    """A column chunk as declared in the footer.

    Attributes:
        physical_type: number of its type in parquet.thrift.
        num_values: number of values, including nulls.
        num_bytes: size of its compressed pages with their headers.
        first_page: offset of its first page.
    """

    physical_type: int
    num_values: int
    num_bytes: int
    first_page: int


def footer_chunks(footer: bytes) -> list[list[Chunk]]:
    """Read the column chunks of each row group, in the order of the columns.

    Args:
        footer: the file's metadata, without the trailing length and magic number.

    Raises:
        PageError: it is damaged.
    """
    try:
        metadata = _Compact(footer).struct(0)
    except IndexError:
        raise PageError(_DAMAGED_FOOTER) from None
    groups = []
    for group in _structs(metadata, _ROW_GROUPS):
        chunks = []
        for column in _structs(group, _COLUMNS):
            fields = column.get(_META_DATA)
            if not isinstance(fields, dict):
                raise PageError(_DAMAGED_FOOTER)
            wanted = (_TYPE, _CHUNK_VALUES, _CHUNK_BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET)
            kind, values, size, first, dictionary = (_number(fields, number) for number in wanted)
            chunks.append(Chunk(kind, values, size, min(first, dictionary or first)))
        groups.append(chunks)
    return groups


def chunk_bytes(source: BinaryIO, size: int, chunk: Chunk, width: int) -> tuple[int, int]:
    """Bound the decoded size of a column chunk, without expanded dictionaries of texts.

    Args:
        source: the file, a `pyarrow.NativeFile`.
        size: its size in bytes.
        chunk: the column chunk.
        width: bytes per value of a fixed-width type, else 0.

    Returns:
        the bytes, and those of its largest page, which is decompressed as a whole.

    Raises:
        PageError: its pages are outside the file, or the size of its encoding cannot be determined.
    """
    position = chunk.first_page
    width = _WIDTH.get(chunk.physical_type, width)
    end, left = position + chunk.num_bytes, chunk.num_values
    largest = pages = values_taken = 0
    if end > size:
        raise PageError("has pages outside the file")
    while left > 0 and position < end:
        header, length = _header(source, position, end)
        kind = next((kind for kind in _ENCODING if kind in header), None)
        uncompressed, compressed = _number(header, _UNCOMPRESSED), _number(header, _COMPRESSED)
        largest, pages = max(largest, uncompressed), pages + uncompressed
        if kind is not None:
            inner = header[kind]
            if not isinstance(inner, dict):
                raise PageError(_DAMAGED)
            values = _number(inner, _NUM_VALUES)
            if _number(inner, _ENCODING[kind]) == _DELTA_BYTE_ARRAY:
                raise PageError("is encoded as DELTA_BYTE_ARRAY, whose size is not known before decoding")
            values_taken += values * (width or _REFERENCE_BYTES)
            left -= values if kind != _DICTIONARY else 0
        position += length + compressed
    # Values of fixed width are decoded page by page; texts are at most as long as their pages.
    return int(values_taken + (largest if width else pages)), int(largest)


def _number(fields: dict[int, Any], number: int) -> int:
    """Return an integer field, which must not be negative; 0 if it is absent."""
    value = fields.get(number, 0)
    if not isinstance(value, int) or value < 0:
        raise PageError(_DAMAGED)
    return value


def _structs(fields: dict[int, Any], number: int) -> Sequence[dict[int, Any]]:
    """Return a list of structs; empty if it is absent."""
    found = fields.get(number, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise PageError(_DAMAGED_FOOTER)
    return found


def _header(source: BinaryIO, position: int, end: int) -> tuple[dict[int, Any], int]:
    """Read a page's header and its length."""
    length = _FIRST_HEADER_BYTES
    while True:
        source.seek(position)
        data = bytes(source.read(min(length, end - position)))
        try:
            reader = _Compact(data)
            return reader.struct(0), reader.position
        except IndexError:
            if length >= _MAX_HEADER_BYTES or len(data) < length:
                raise PageError(_DAMAGED) from None
            length *= 16


class _Compact:
    """Reads values in Thrift's compact protocol; IndexError at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Read a struct as fields by number."""
        fields: dict[int, Any] = {}
        number = 0
        while first := self._byte():
            number = number + (first >> 4) if first >> 4 else self._integer()
            kind = first & 0x0F
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise PageError(_DAMAGED)
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._skip(8)
            case 8:
                return self._skip(self._varint())
            case 9 | 10:
                return self._list(depth)
            case 12:
                return self.struct(depth)
        raise PageError(_DAMAGED)

    def _list(self, depth: int) -> list[Any]:
        first = self._byte()
        count = self._varint() if first >> 4 == 15 else first >> 4
        # Each item takes at least a byte, so a list is no longer than the remaining bytes.
        return [self._value(first & 0x0F, depth + 1) for _ in range(count)]

    def _byte(self) -> int:
        self.position += 1
        return self._data[self.position - 1]

    def _skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise PageError(_DAMAGED)

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

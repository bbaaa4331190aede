"""Headers of the pages of a Parquet file: how large each page becomes.

A column chunk is a sequence of pages; before each stands a header in Thrift's compact protocol (parquet.thrift,
`PageHeader`). Decoders take sizes from these headers, whatever the footer says, so they are what has to be read.
"""

from typing import Any

# parquet.thrift: field numbers of PageHeader, of its three kinds of page, and encodings.
_UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY, _DATA_V2 = 2, 3, 5, 7, 8
_NUM_VALUES = 1
_ENCODING = {_DATA: 2, _DICTIONARY: 2, _DATA_V2: 4}
_DELTA_BYTE_ARRAY = 7  # a text may repeat the beginning of the one before it
_WIDTH = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_REFERENCE_BYTES = 8  # a text's offset, or its place in a dictionary
_MAX_HEADER_BYTES = 1 << 20
_FIRST_HEADER_BYTES = 256
_MAX_DEPTH = 16


class PageError(Exception):
    """Why the pages of a column cannot be measured."""


def chunk_bytes(source: Any, size: int, chunk: Any, width: int) -> tuple[int, int]:
    """Most bytes that a column chunk takes when it is decoded, besides what a dictionary of texts stands for.

    Args:
        source: the file, a `pyarrow.NativeFile`.
        size: its bytes.
        chunk: metadata of the chunk.
        width: bytes of a value of a fixed length, else 0.

    Returns:
        the bytes, and those of its largest page, which is decompressed as a whole.

    Raises:
        PageError: its pages lie outside of the file, or it has an encoding that no size can be told of.
    """
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < position:
        position = chunk.dictionary_page_offset
    width = _WIDTH.get(chunk.physical_type, width)
    end, left = position + chunk.total_compressed_size, chunk.num_values
    largest = pages = values_taken = 0
    if not 0 <= position <= end <= size:
        raise PageError("has pages outside of the file")
    while left > 0 and position < end:
        header, length = _header(source, position, end)
        kind = next((kind for kind in _ENCODING if kind in header), None)
        uncompressed, compressed = header.get(_UNCOMPRESSED, 0), header.get(_COMPRESSED, 0)
        if uncompressed < 0 or compressed < 0:
            raise PageError("has a page of a size below 0")
        largest, pages = max(largest, uncompressed), pages + uncompressed
        if kind is not None:
            values = header[kind].get(_NUM_VALUES, 0)
            if header[kind].get(_ENCODING[kind]) == _DELTA_BYTE_ARRAY:
                raise PageError("is encoded as DELTA_BYTE_ARRAY, whose size is not known before it is decoded")
            if values < 0:
                raise PageError("has a page of fewer than 0 values")
            values_taken += values * (width or _REFERENCE_BYTES)
            left -= values if kind != _DICTIONARY else 0
        position += length + compressed
    # Values of a fixed width leave their page one by one; texts are as long as their pages at most.
    return int(values_taken + (largest if width else pages)), int(largest)


def _header(source: Any, position: int, end: int) -> tuple[dict[int, Any], int]:
    """A page's header, and its length."""
    length = _FIRST_HEADER_BYTES
    while True:
        source.seek(position)
        data = bytes(source.read(min(length, end - position)))
        try:
            reader = _Compact(data)
            return reader.struct(0), reader.position
        except IndexError:
            if length >= _MAX_HEADER_BYTES or len(data) < length:
                raise PageError("has a page whose header is damaged") from None
            length *= 16


class _Compact:
    """Reads values of Thrift's compact protocol; IndexError where the bytes end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Fields by number."""
        if depth > _MAX_DEPTH:
            raise PageError("has a page whose header is damaged")
        fields: dict[int, Any] = {}
        number = 0
        while first := self._byte():
            number = number + (first >> 4) if first >> 4 else self._integer()
            kind = first & 0x0F
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
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
        raise PageError("has a page whose header is damaged")

    def _list(self, depth: int) -> None:
        first = self._byte()
        count = self._varint() if first >> 4 == 15 else first >> 4
        if depth > _MAX_DEPTH:
            raise PageError("has a page whose header is damaged")
        for _ in range(count):
            self._value(first & 0x0F, depth + 1)

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
                raise PageError("has a page whose header is damaged")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

"""Read untrusted Arrow IPC streams, as Hugging Face `datasets` writes them: uncompressed, with bounded batches.

An uncompressed batch refers to bytes of the file, so that reading it takes no more than the file. What could take more
is refused: compressed buffers (recognised by the message's flatbuffer before Arrow decodes it) and rows without bytes.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

_SLICE_ROWS = 64
_MAX_CELL = 4 << 20
# Fields of tables in Arrow's flatbuffers (Message.fbs of the Arrow format).
_MESSAGE_HEADER, _DICTIONARY_DATA, _BATCH_COMPRESSION = 2, 1, 3
_MAX_BATCHES = 10_000_000


def stream_schema(path: Path) -> pa.Schema:
    """The schema of a stream; Arrow's errors pass through."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        return reader.schema


def read_stream(path: Path) -> Iterator[pa.RecordBatch]:
    """Read a stream in pieces of a few rows; Arrow's errors pass through, and what is refused raises `ArrowInvalid`."""
    size = path.stat().st_size
    _require_uncompressed(path)
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            if batch.num_rows > 8 * size:
                raise pa.ArrowInvalid(f"it declares {batch.num_rows:,} rows in a file of {size:,} bytes")
            batch.validate(full=True)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if pa.types.is_dictionary(column.type) and _longest(column.dictionary) > _MAX_CELL:
                    raise pa.ArrowInvalid(f"column {name!r} has texts of more than {_MAX_CELL:,} bytes")
            for start in range(0, batch.num_rows, _SLICE_ROWS):
                yield batch.slice(start, _SLICE_ROWS)


def _longest(dictionary: pa.Array) -> int:
    if not (pa.types.is_string(dictionary.type) or pa.types.is_large_string(dictionary.type)):
        return 0
    return int(pc.max(pc.binary_length(dictionary)).as_py() or 0)


def _require_uncompressed(path: Path) -> None:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.MessageReader.open_stream(source)
        for _ in range(_MAX_BATCHES):
            try:
                message = reader.read_next_message()
            except StopIteration:
                return
            if message.type in ("record batch", "dictionary") and _is_compressed(
                message.metadata.to_pybytes(), message.type == "dictionary"
            ):
                raise pa.ArrowInvalid("its batches are compressed")
    raise pa.ArrowInvalid(f"it has more than {_MAX_BATCHES:,} messages")


def _is_compressed(message: bytes, is_dictionary: bool) -> bool:
    """Whether a message's batch declares compressed buffers."""
    try:
        table = _subtable(message, _field(message, struct.unpack_from("<I", message)[0], _MESSAGE_HEADER))
        if is_dictionary:
            table = _subtable(message, _field(message, table, _DICTIONARY_DATA))
        return _field(message, table, _BATCH_COMPRESSION) != 0
    except (struct.error, ValueError):
        raise pa.ArrowInvalid("a message is damaged") from None


def _field(buffer: bytes, table: int, number: int) -> int:
    """Position of a field of a flatbuffer table; 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if not 0 <= vtable < len(buffer):
        raise ValueError(vtable)
    (size,) = struct.unpack_from("<H", buffer, vtable)
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, vtable + entry)[0] if entry + 2 <= size else 0
    return table + offset if offset else 0


def _subtable(buffer: bytes, field: int) -> int:
    if not field:
        raise ValueError(field)
    return int(field + struct.unpack_from("<I", buffer, field)[0])

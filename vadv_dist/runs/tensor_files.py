"""The safetensors files of a checkpoint: one rank's parts of tensors, laid out in memory as in the file.

The format (https://github.com/huggingface/safetensors#format) is the length of a JSON header, the header, and the
values. The library can only write a whole file in one call, during which no other thread runs; here the values are
written piece by piece from one block of memory, so that they can be hashed on the way and training goes on. Files are
read by the library.
"""

import contextlib
import json
import struct
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor

from vadv_dist.errors import MachineError
from vadv_dist.formats.tensor_parts import TensorPart, stored_type, whole_tensors
from vadv_dist.formats.weights import require_same_tensors

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Key of a file's metadata: for each tensor of which the file holds a range, [start, *shape].
_RANGES = "ranges"


@dataclass(frozen=True)
class FileImage:
    """A file's content.

    Attributes:
        header: its first bytes.
        values: the others, [bytes], uint8 on the CPU.
    """

    header: bytes
    values: Tensor

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The content in order, in pieces of at most `size` bytes."""
        yield memoryview(self.header)
        # numpy's type stubs do not know that an array is a buffer.
        view = memoryview(cast(bytes, self.values.numpy()))
        for first in range(0, len(view), size):
            yield view[first : first + size]


class HostBuffer:
    """Host memory that the parts of a checkpoint are copied into. It is allocated once, pinned for a GPU, and reused.

    Memory grows by the largest checkpoint and no more: the allocator of pinned memory in PyTorch would round it up to a
    power of two.
    """

    def __init__(self) -> None:
        self._bytes = torch.empty(0, dtype=torch.uint8)
        self._unpin: Callable[[], object] = lambda: None

    def copy(self, files: Mapping[str, Iterable[TensorPart]]) -> dict[str, FileImage]:
        """Copy parts from their device, and return each file's content; the next call overwrites it."""
        # Larger types first, so that every tensor is aligned in the file, as the library writes it.
        ordered = {
            name: sorted(parts, key=lambda part: -stored_type(part.values).itemsize) for name, parts in files.items()
        }
        sizes = {name: sum(_num_bytes(part) for part in parts) for name, parts in ordered.items()}
        devices = {part.values.device for parts in ordered.values() for part in parts if part.values.is_cuda}
        # A file's values begin at a multiple of 8 bytes, the size of the largest number.
        self._reserve(sum(-(-size // 8) * 8 for size in sizes.values()), pinned=bool(devices))
        for device in devices:
            torch.cuda.synchronize(device)  # the last update may have run on another stream
        images, begin = {}, 0
        for name, parts in ordered.items():
            values = self._bytes[begin : begin + sizes[name]]
            images[name] = FileImage(_header(parts), values)
            _fill(values, parts)
            begin += -(-sizes[name] // 8) * 8
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        return images

    def _reserve(self, size: int, *, pinned: bool) -> None:
        if len(self._bytes) >= size:
            return
        self._unpin()
        self._bytes = torch.empty(0, dtype=torch.uint8)  # frees the smaller block before the larger one is allocated
        self._bytes = torch.empty(size, dtype=torch.uint8)
        if pinned and int(_cudart().cudaHostRegister(self._bytes.data_ptr(), size, 0)) == 0:
            self._unpin = weakref.finalize(self, _unregister, self._bytes)
        elif pinned:
            # For example because of a limit on locked memory. Copies are only slower; the next kernel would raise it.
            with contextlib.suppress(RuntimeError):
                torch.zeros(1, device="cuda")


def _unregister(block: Tensor) -> None:
    _cudart().cudaHostUnregister(block.data_ptr())


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]  # untyped in torch


def _num_bytes(part: TensorPart) -> int:
    return part.values.numel() * stored_type(part.values).itemsize


def _header(parts: Sequence[TensorPart]) -> bytes:
    """Length of the JSON header, and the header, padded so that values begin at a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ranges = {part.name: [part.start, *part.shape] for part in parts if not part.is_whole}
    if ranges:
        entries["__metadata__"][_RANGES] = json.dumps(ranges)
    begin = 0
    for part in parts:
        end = begin + _num_bytes(part)
        shape = part.shape if part.is_whole else [part.values.numel()]
        entries[part.name] = {
            "dtype": _NAMES[stored_type(part.values)],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _fill(target: Tensor, parts: Sequence[TensorPart]) -> None:
    begin = 0
    with torch.no_grad():
        for part in parts:
            end = begin + _num_bytes(part)
            place = target[begin:end].view(stored_type(part.values)).view(part.values.shape)
            place.copy_(part.values, non_blocking=True)
            begin = end


class SavedTensors:
    """A `TensorReader` of the files of several ranks; a file is opened when it is first needed.

    Args:
        names: the files, in the order in which they are searched.
        open_file: yields the local path of a verified file.
        shapes: shapes that the tensors are expected to have, as far as they are known.
        where: what the files belong to, for messages.
    """

    def __init__(
        self,
        names: Sequence[str],
        open_file: Callable[[str], AbstractContextManager[Path]],
        *,
        shapes: Mapping[str, Sequence[int]] | None = None,
        where: object = "The checkpoint",
    ) -> None:
        self._names = names
        self._open_file = open_file
        self._shapes, self._where = shapes or {}, where
        self._opened: list[_OpenFile] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.clear()
        self._stack.close()

    def __contains__(self, name: object) -> bool:
        """See `TensorReader`."""
        return any(name in file.ranges for file in self._files())

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """See `TensorReader`.

        Raises:
            UserError: the files have no such tensor, or one of another shape than expected.
            MachineError: a file is damaged, or the files lack some of the values.
        """
        found: Tensor | None = None
        is_known = False
        missing = 0
        for file in self._files():
            if name not in file.ranges:
                continue
            (first, last), shape = file.ranges[name]
            is_known = True
            if name in self._shapes:
                require_same_tensors({name: self._shapes[name]}, {name: shape}, self._where)
            if stop is None:
                stop = prod(shape)
            begin, end = max(start, first), min(stop, last)
            if begin > end or (begin == end and start < stop):
                continue
            values = file.read(name, begin - first, end - first)
            if (begin, end) == (start, stop):
                return values
            if found is None:
                found, missing = torch.empty(stop - start, dtype=values.dtype), stop - start
            found[begin - start : end - start] = values
            missing -= end - begin
            if not missing:
                return found
        if not is_known:
            require_same_tensors({name: ()}, {}, self._where)
        raise MachineError(f"{self._where} has no values {start} to {stop} of {name}: a file of it is incomplete.")

    def whole(self) -> dict[str, Tensor]:
        """All tensors in full."""
        return whole_tensors(
            TensorPart(name, shape, first, file.read(name, 0, last - first))
            for file in self._files()
            for name, ((first, last), shape) in file.ranges.items()
        )

    def _files(self) -> Iterator["_OpenFile"]:
        for number, name in enumerate(self._names):
            if number == len(self._opened):
                path = self._stack.enter_context(self._open_file(name))
                self._opened.append(_OpenFile(path, self._stack))
            yield self._opened[number]


class _OpenFile:
    """An open safetensors file.

    Attributes:
        ranges: by tensor, its range (start, stop) in the file and its shape.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        from safetensors import safe_open

        self._file: Any = stack.enter_context(safe_open(path, "pt"))
        parts = json.loads((self._file.metadata() or {}).get(_RANGES, "{}"))
        self.ranges: dict[str, tuple[tuple[int, int], tuple[int, ...]]] = {}
        for name in self._file.keys():  # noqa: SIM118  # not a mapping
            held = tuple(self._file.get_slice(name).get_shape())
            start, *shape = parts.get(name, (0, *held))
            self.ranges[name] = ((start, start + prod(held)), tuple(shape))

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Values `start` to before `stop` of what the file holds of a tensor, [stop - start]."""
        held = self._file.get_slice(name)
        shape = held.get_shape()
        if not shape or (start, stop) == (0, prod(shape)):
            values: Tensor = self._file.get_tensor(name)
            return values.flatten()
        # Only rows can be sliced.
        row = prod(shape[1:])
        first = start // row
        rows: Tensor = held[first : -(-stop // row)]
        return rows.flatten()[start - first * row : stop - first * row]

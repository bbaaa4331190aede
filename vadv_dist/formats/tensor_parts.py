"""Tensors that are saved in parts by several processes.

Every rank of a run holds all of a tensor, a contiguous range of its flattened values, or none of it. A `TensorPart` is
such a range. `TensorReader` gives any range back, whatever the parts were when they were saved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class TensorPart:
    """A contiguous range of a tensor.

    Attributes:
        name: the tensor's name.
        shape: shape of the whole tensor.
        start: where the range begins in the flattened tensor.
        values: the range, contiguous, on any device; whatever its shape, it is read in order.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    values: "Tensor"

    @classmethod
    def whole(cls, name: str, tensor: "Tensor") -> "TensorPart":
        """The part that is the whole tensor."""
        return cls(name, tuple(tensor.shape), 0, tensor.detach())

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the tensor."""
        return self.values.numel() == prod(self.shape)


class TensorReader(Protocol):
    """Named tensors of which any range can be read."""

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> "Tensor":
        """Values `start` to before `stop` of a flattened tensor on the CPU, [stop - start]; None reads to its end."""
        ...


class HeldTensors:
    """A `TensorReader` of whole tensors in memory."""

    def __init__(self, tensors: "Mapping[str, Tensor]") -> None:
        self._tensors = tensors

    def __contains__(self, name: object) -> bool:
        """See `TensorReader`."""
        return name in self._tensors

    def read(self, name: str, start: int = 0, stop: int | None = None) -> "Tensor":
        """See `TensorReader`."""
        return self._tensors[name].flatten()[start:stop]


def whole_tensors(parts: Iterable[TensorPart]) -> "dict[str, Tensor]":
    """Copy the parts of all ranks into whole tensors on the CPU; 16-bit numbers become fp32, as in a file."""
    import torch

    flat: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for part in parts:
        values = part.values.detach().flatten().to("cpu", stored_type(part.values))
        shapes[part.name] = part.shape
        if part.name not in flat:
            flat[part.name] = torch.empty(prod(part.shape), dtype=values.dtype)
        flat[part.name][part.start : part.start + len(values)] = values
    return {name: values.view(shapes[name]) for name, values in flat.items()}


def stored_type(values: "Tensor") -> "torch.dtype":
    """The type in which values are saved: fp32 if they are 16-bit numbers, otherwise their own."""
    import torch

    return torch.float32 if values.dtype in (torch.bfloat16, torch.float16) else values.dtype

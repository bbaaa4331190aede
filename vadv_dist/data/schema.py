"""The parts of a data set: clips, feature shapes, labels, windows, and the batch that a model receives.

Shape letters: R rows of a window, B rows of a batch, L tokens, T frames, N tokens per frame, D feature width,
E expression scores.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 1
SPLITS = ("train", "valid", "test")
META_COLUMNS = ("clip_id", "video_id", "source", "text", "label", "num_words")
# Number of axes of one clip's feature: visual [T, N, D], face [T, E], audio [T, D] or [D].
FEATURE_AXES: dict[str, tuple[int, ...]] = {"visual": (3,), "face": (2,), "audio": (1, 2)}
FEATURE_LAYOUT = {"visual": "[T, N, D]", "face": "[T, E]", "audio": "[T, D] or [D]"}

# Arrow uses 32-bit indices for the values of one tensor, and 64-bit ones for rows.
MAX_VALUES = (1 << 31) - 1

# So few rows are copied faster one by one than by chunk.
_FEW_ROWS = 64
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")

Array = npt.NDArray[np.generic]
IntArray = npt.NDArray[np.int64]


def _encodable(text: str) -> str:
    text.encode()  # JSON can hold half of a surrogate pair, which is no text
    return text


# Values of `dataset.json`, which may have been edited. A count is at most a petabyte: sums over all shards fit into 64
# bits.
Text = Annotated[str, AfterValidator(_encodable)]
Count = Annotated[int, Field(strict=True, ge=0, le=1 << 50)]
Number = Annotated[float, Field(strict=True, ge=-1e300, le=1e300, allow_inf_nan=False)]


@dataclass(frozen=True)
class FeatureSpec:
    """Shape and storage type of one feature, the same for all clips of a data set."""

    shape: tuple[Count, ...]
    dtype: Annotated[str, Field(pattern="^float(16|32|64)$")] = "float16"

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one clip's values in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def feature_fault(name: str, spec: FeatureSpec) -> str | None:
    """What is wrong with a data set's feature, as a sentence; None if nothing is."""
    if name not in FEATURE_AXES:
        return f"Unknown feature {name!r}, expected one of {', '.join(FEATURE_AXES)}."
    if len(spec.shape) not in FEATURE_AXES[name]:
        return f"Feature {name!r} has shape {list(spec.shape)} per clip, expected {FEATURE_LAYOUT[name]}."
    if math.prod(spec.shape) > MAX_VALUES:
        return f"Feature {name!r} has shape {list(spec.shape)} per clip: too many values. Reduce it."
    return None


@dataclass(frozen=True)
class LabelSpec:
    """Kind and range of a data set's labels.

    Attributes:
        low, high: lowest and highest label.
        kind: `regression`, a real number in [low, high], or `class`, an integer from 0 to `high`. Clips with class
            labels may have no text.
        classes: names of the classes, if known.
        threshold: the label that separates negative from positive, between `low` and `high`; None means the middle of
            the range, which is 0 for a symmetric range.
    """

    low: Number = -3.0
    high: Number = 3.0
    kind: Literal["regression", "class"] = "regression"
    classes: tuple[Text, ...] = ()
    threshold: Number | None = None

    @classmethod
    def of_classes(cls, count: int, names: Sequence[str] = ()) -> "LabelSpec":
        """Labels with `count` classes."""
        return cls(0.0, float(count - 1), "class", tuple(names))

    @property
    def positive_from(self) -> float:
        """The threshold between negative and positive labels."""
        return (self.low + self.high) / 2 if self.threshold is None else self.threshold

    @property
    def is_class(self) -> bool:
        """Whether labels are classes."""
        return self.kind == "class"

    @property
    def num_classes(self) -> int:
        """Number of classes; only for labels that are classes."""
        return int(self.high) + 1

    @property
    def num_prompts(self) -> int:
        """Number of prompts that describe the labels: one per class, or one for each side of the threshold."""
        return self.num_classes if self.is_class else 2

    def holds(self, label: float) -> bool:
        """Whether a label is valid."""
        return self.low <= label <= self.high and (not self.is_class or float(label).is_integer())

    def __str__(self) -> str:
        if self.is_class:
            return f"an integer class from 0 to {self.high:g}"
        return f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Clip:
    """One clip: text, label and features (a missing feature is None or absent)."""

    clip_id: str
    video_id: str
    text: str
    label: float
    source: str
    features: Mapping[str, Array | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureColumn:
    """One feature of many clips, stored in the chunks in which it was read so that joining shards copies nothing.

    Attributes:
        chunks: values of consecutive rows, each [rows of the chunk, ...].
        present: whether each clip has the feature, [R]; values of other rows are undefined.
    """

    chunks: tuple[Array, ...]
    present: npt.NDArray[np.bool_]

    @cached_property
    def is_complete(self) -> bool:
        """Whether every clip has the feature."""
        return bool(self.present.all())

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *(len(chunk) for chunk in self.chunks)])

    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        """Copy the given rows, [len(rows), ...], with zeros for clips that lack the feature."""
        if len(self.chunks) == 1:
            taken = self.chunks[0][rows]
        else:
            taken = np.empty((len(rows), *self.chunks[0].shape[1:]), self.chunks[0].dtype)
            chunk_of_row = self._starts.searchsorted(rows, side="right") - 1
            row_of_chunk = rows - self._starts[chunk_of_row]
            if len(rows) <= _FEW_ROWS:
                for to, (chunk, row) in enumerate(zip(chunk_of_row.tolist(), row_of_chunk.tolist(), strict=True)):
                    taken[to] = self.chunks[chunk][row]
            else:
                for chunk in np.unique(chunk_of_row):
                    mine = chunk_of_row == chunk
                    taken[mine] = self.chunks[chunk][row_of_chunk[mine]]
        if not self.is_complete:
            taken[~self.present[rows]] = 0
        return taken


@dataclass(frozen=True)
class Window:
    """The rows of some consecutive shards in memory. A plan orders them and a collator reads them.

    Attributes:
        source: the clips' own source, or the name of their data set if a run reads several.
        text: what the student reads: the clips' words or, with context, their readings (`data/context.py`).
        row_id: index of each row in its split, over all sources: the same in every epoch and on every rank.
    """

    clip_id: list[str]
    video_id: list[str]
    source: list[str]
    text: list[str]
    label: npt.NDArray[np.float32]
    num_words: npt.NDArray[np.int32]
    row_id: IntArray
    features: dict[str, FeatureColumn]

    @cached_property
    def length(self) -> IntArray:
        """Length of each text by which batches are bucketed, [R], as of `text_lengths`."""
        return text_lengths(self.text)

    def __len__(self) -> int:
        return len(self.clip_id)


@dataclass(frozen=True)
class Batch:
    """What one rank's model receives for one micro-batch.

    Attributes:
        fields: the fields of the task by name, each [B, ...], such as token ids or clip features.
        present: for each field that a clip can lack, 1 if the row has it and 0 if not, [B]; 0 for filler rows.
        label: in label units, or the index of a class, [B].
        valid: 1 for real rows, [B]; 0 for filler rows, which follow them, keep ranks in step and shapes the same, and
            count for nothing.
        row_id: index of each row in its split, [B]: the same in every epoch and on every rank; -1 for filler rows.
        counts: number of rows of the *global* batch, [] each, int64. They are divisors of means and therefore at least
            1: `rows` counts real rows, a field's name those that have the field, and `complete` those that have every
            one. Tensors, because a recorded step reads the values of each batch.
        names: (source, clip_id) of each real row.
        num_tokens: number of tokens of real rows, without padding.
    """

    fields: Mapping[str, "torch.Tensor"]
    present: Mapping[str, "torch.Tensor"]
    label: "torch.Tensor"
    valid: "torch.Tensor"
    row_id: "torch.Tensor"
    counts: Mapping[str, "torch.Tensor"]
    names: tuple[tuple[str, str], ...] = ()
    num_tokens: int = 0

    def to(self, device: "torch.device") -> "Batch":
        """Move every tensor to a device (asynchronously if the memory is pinned)."""
        return self if device.type == "cpu" else self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def clone(self) -> "Batch":
        """Copy every tensor, where it is."""
        return self._map(lambda tensor: tensor.clone())

    def pin(self) -> "Batch":
        """Copy every tensor to pinned memory, for asynchronous transfer to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory())

    def tensors(self) -> "list[torch.Tensor]":
        """All tensors, in an order that depends only on the names of fields."""
        own = (self.label, self.valid, self.row_id)
        return [*self.fields.values(), *self.present.values(), *own, *self.counts.values()]

    def _map(self, change: "Callable[[torch.Tensor], torch.Tensor]") -> "Batch":
        return replace(
            self,
            fields={name: change(tensor) for name, tensor in self.fields.items()},
            present={name: change(tensor) for name, tensor in self.present.items()},
            label=change(self.label),
            valid=change(self.valid),
            row_id=change(self.row_id),
            counts={name: change(count) for name, count in self.counts.items()},
        )


def text_lengths(texts: Sequence[str]) -> IntArray:
    """Number of words and punctuation marks of each text, [R].

    Most tokenizers make at least one token of each. Their own count would depend on the encoder, and the order of an
    epoch must not.
    """
    return np.fromiter((len(_WORD_OR_MARK.findall(text)) for text in texts), np.int64, len(texts))


def count_words(text: str) -> int:
    """Number of words in a text, separated by white space."""
    return len(text.split())

"""What a data set is made of: clips, feature shapes, labels, and the batch that a model receives.

Shape letters: R rows of a window, B rows of a batch, L tokens, T frames, N tokens per frame, D feature width,
E expression scores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

SCHEMA_VERSION = 1
SPLITS = ("train", "valid", "test")
LABEL_KINDS = ("regression", "class")
META_COLUMNS = ("clip_id", "video_id", "source", "text", "label", "num_words")
# Number of axes of one clip's feature: visual [T, N, D], face [T, E], audio [T, D] or [D].
FEATURE_AXES: dict[str, tuple[int, ...]] = {"visual": (3,), "face": (2,), "audio": (1, 2)}
FEATURE_LAYOUT = {"visual": "[T, N, D]", "face": "[T, E]", "audio": "[T, D] or [D]"}

Array = npt.NDArray[np.generic]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FeatureSpec:
    """Shape and storage type that every clip of a data set shares for one feature."""

    shape: tuple[int, ...]
    dtype: str = "float16"

    @property
    def bytes_per_row(self) -> int:
        """Bytes that one clip's values take in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class LabelSpec:
    """What a data set's labels are.

    Attributes:
        low, high: lowest and highest label.
        kind: `regression`, a real number in [low, high], or `class`, a whole number from 0 to `high`. Clips of
            classes may be without words.
        classes: name of each class, where they are known.
        threshold: lowest positive label, between `low` and `high`; None takes the middle of the range, which is 0 for a
            symmetric one.
    """

    low: float = -3.0
    high: float = 3.0
    kind: str = "regression"
    classes: tuple[str, ...] = ()
    threshold: float | None = None

    @classmethod
    def of_classes(cls, count: int, names: Sequence[str] = ()) -> "LabelSpec":
        """Labels that are one of so many classes."""
        return cls(0.0, float(count - 1), "class", tuple(names))

    @property
    def positive_from(self) -> float:
        """The threshold: the lowest positive label."""
        return (self.low + self.high) / 2 if self.threshold is None else self.threshold

    @property
    def is_class(self) -> bool:
        """Whether labels are classes."""
        return self.kind == "class"

    def holds(self, label: float) -> bool:
        """Whether a label is one of these."""
        return self.low <= label <= self.high and (not self.is_class or float(label).is_integer())

    def __str__(self) -> str:
        if self.is_class:
            return f"a class from 0 to {self.high:g}"
        return f"a number in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Clip:
    """One clip: its words, its label and any of its features (a missing one is None or absent)."""

    clip_id: str
    video_id: str
    text: str
    label: float
    source: str
    features: Mapping[str, Array | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureColumn:
    """One feature of many clips, kept in the chunks in which it was read so that joining shards copies nothing.

    Attributes:
        chunks: values of consecutive rows, each [rows of the chunk, ...].
        present: whether each clip has the feature, [R]; what the chunks hold elsewhere means nothing.
    """

    chunks: tuple[Array, ...]
    present: npt.NDArray[np.bool_]

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.cumsum([0, *(len(chunk) for chunk in self.chunks)])

    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        """Copy some rows, [len(rows), ...]; zeros where a clip lacks the feature."""
        if len(self.chunks) == 1:
            taken = self.chunks[0][rows]
        else:
            taken = np.empty((len(rows), *self.chunks[0].shape[1:]), self.chunks[0].dtype)
            chunk_of_row = np.searchsorted(self._starts, rows, side="right") - 1
            for chunk in np.unique(chunk_of_row):
                mine = chunk_of_row == chunk
                taken[mine] = self.chunks[chunk][rows[mine] - self._starts[chunk]]
        taken[~self.present[rows]] = 0
        return taken


@dataclass(frozen=True)
class Window:
    """The rows of some consecutive shards, in memory: what a plan orders and a collator takes rows from.

    `source` is what the clips say of themselves, or the name of their data set where a run reads several.
    """

    clip_id: list[str]
    video_id: list[str]
    source: list[str]
    text: list[str]
    label: npt.NDArray[np.float32]
    num_words: npt.NDArray[np.int32]
    features: dict[str, FeatureColumn]

    def __len__(self) -> int:
        return len(self.clip_id)

    @property
    def feature_bytes(self) -> int:
        """Bytes of all features of the window."""
        return sum(chunk.nbytes for column in self.features.values() for chunk in column.chunks)


@dataclass(frozen=True)
class Batch:
    """What one rank's model receives for one micro-batch.

    Attributes:
        input_ids: token ids, [B, L].
        attention_mask: 1 on tokens, 0 on padding, [B, L].
        label: sentiment in label units, [B].
        valid: 1 on real rows, 0 on filler rows that keep ranks in step, [B].
        visual: frame features [B, T, N, D], None where the model has no visual branch.
        face: expression scores [B, T, E], None where the model has no facial branch.
        has_visual, has_face: 1 where the row has the feature, [B] (0 on rows that miss it), or None like the feature.
        num_rows: real rows of the *global* batch, the divisor of every mean over clips.
        num_video_rows: those of them that have the features which the teacher needs, the divisor of its terms.
        names: (source, clip_id) of each row.
    """

    input_ids: "torch.Tensor"
    attention_mask: "torch.Tensor"
    label: "torch.Tensor"
    valid: "torch.Tensor"
    visual: "torch.Tensor | None"
    face: "torch.Tensor | None"
    has_visual: "torch.Tensor | None"
    has_face: "torch.Tensor | None"
    num_rows: int
    num_video_rows: int
    names: tuple[tuple[str, str], ...] = ()

    @property
    def has_video(self) -> "torch.Tensor | None":
        """1 where the row has what the teacher cannot do without, [B]: visual features, or faces where it has no eye
        for those. None where there is no teacher.
        """
        return self.has_visual if self.has_visual is not None else self.has_face

    def to(self, device: "torch.device") -> "Batch":
        """Move every tensor to a device (asynchronously where the memory is pinned)."""
        return self if device.type == "cpu" else self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin(self) -> "Batch":
        """Copy every tensor to pinned memory, from which a GPU reads without waiting."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: "Callable[[torch.Tensor], torch.Tensor]") -> "Batch":
        def each(tensor: "torch.Tensor | None") -> "torch.Tensor | None":
            return None if tensor is None else change(tensor)

        return replace(
            self,
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            label=change(self.label),
            valid=change(self.valid),
            visual=each(self.visual),
            face=each(self.face),
            has_visual=each(self.has_visual),
            has_face=each(self.has_face),
        )


def count_words(text: str) -> int:
    """Number of words of a text: runs of characters between white space."""
    return len(text.split())

"""A model's errors by group of clips: bins of text lengths and of labels, and the mean of each group with its interval.

Shape letters: R clips, G groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import IntArray
from vadv_dist.evaluation.paired import Interval
from vadv_dist.evaluation.reliability import mean_interval

# A bootstrap over fewer clips is too narrow.
MIN_CLIPS = 10
# Labels with more values than this are binned.
_MOST_VALUES = 7
_LABEL_BINS = 6


@dataclass(frozen=True, eq=False)
class GroupScore:
    """The score of one group of clips.

    Attributes:
        name: the group's.
        values: the score of each of its clips, [R]: absolute errors, or whether they are right.
        bias: mean of prediction minus label; None where predictions are not numbers.
    """

    name: str
    values: npt.NDArray[Any]
    bias: float | None = None

    @property
    def clips(self) -> int:
        """Number of clips."""
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        """The mean over the clips."""
        return float(self.values.mean())

    @cached_property
    def interval(self) -> Interval | None:
        """95 % interval of the mean over clips; None with fewer than `MIN_CLIPS`."""
        return mean_interval(self.values) if self.clips >= MIN_CLIPS else None


@dataclass(frozen=True)
class Binned:
    """A partition of clips, in order.

    Attributes:
        names: of the groups, [G]; every one has clips.
        index: group of each clip, [R].
    """

    names: list[str]
    index: IntArray


def length_bins(words_R: npt.ArrayLike, most: int = 5) -> Binned:
    """Groups of about equal size by number of words; texts of one length are in one group.

    Args:
        words_R: number of words of each clip.
        most: number of groups; fewer if lengths repeat.
    """
    words = np.asarray(words_R, np.int64)
    # The last length of each group: the least that a share of the clips does not exceed.
    last = np.unique(np.quantile(words, np.arange(1, most + 1) / most, method="inverted_cdf")).astype(np.int64)
    group = np.searchsorted(last, words, side="left")
    names = []
    for number in range(len(last)):
        mine = words[group == number]
        low, high = int(mine.min()), int(mine.max())
        unit = "word" if high == 1 else "words"
        names.append(f"{low} {unit}" if low == high else f"{low} to {high} {unit}")
    return Binned(names, group.astype(np.int64))


def label_bins(label_R: npt.ArrayLike, low: float, high: float) -> Binned:
    """Groups by label: one for each value if there are at most seven, or else six equal parts of the label range.

    A label on the edge of two parts is in the upper one; parts without clips are left out.

    Args:
        label_R: label of each clip.
        low, high: the range of labels.
    """
    label = np.asarray(label_R, np.float64)
    values, group = np.unique(label, return_inverse=True)
    if len(values) <= _MOST_VALUES:
        return Binned([_number(value) for value in values], group.astype(np.int64))
    edges = np.linspace(low, high, _LABEL_BINS + 1)
    # Labels are stored in fp32, in which an edge such as 0.7 is smaller than in fp64.
    part = np.searchsorted(edges[1:-1].astype(np.float32), label.astype(np.float32), side="right")
    used, group = np.unique(part, return_inverse=True)
    names = [f"{_number(edges[place])} to {_number(edges[place + 1])}" for place in used]
    return Binned(names, group.astype(np.int64))


def named_groups(name_R: Sequence[str]) -> Binned:
    """Groups of equal names, such as videos, sorted by name."""
    names, group = np.unique(np.asarray(name_R, np.object_), return_inverse=True)
    return Binned([str(name) for name in names], group.astype(np.int64))


def group_scores(score_R: npt.ArrayLike, groups: Binned, *, bias_R: npt.ArrayLike | None = None) -> list[GroupScore]:
    """A score by group, in the order of the groups.

    Args:
        score_R: score of each clip: an absolute error, or whether the clip is right.
        groups: the clips' groups.
        bias_R: prediction minus label of each clip.
    """

    def parts(value_R: npt.ArrayLike) -> list[npt.NDArray[Any]]:
        return np.split(np.asarray(value_R)[order], ends)

    order = np.argsort(groups.index, kind="stable")
    ends = np.cumsum(np.bincount(groups.index))[:-1]
    means = [None] * len(groups.names) if bias_R is None else [float(part.mean()) for part in parts(bias_R)]
    return [GroupScore(*found) for found in zip(groups.names, parts(score_R), means, strict=True)]


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")

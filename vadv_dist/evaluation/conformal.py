"""Intervals around predictions from errors on other clips: split conformal prediction (Lei et al., 2018)."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from vadv_dist.errors import UserError

_PERCENTS = range(1, 100)


@dataclass(frozen=True)
class ErrorQuantiles:
    """Upper quantiles of absolute errors on clips that a model was not trained on.

    If new clips are exchangeable with these, the interval prediction ± quantile contains the label of a new clip with
    at least the quantile's probability, whatever the model is.

    Attributes:
        clips: number of errors.
        widths: for 1 % to 99 %, the ⌈(clips + 1) · p⌉-th smallest error, in label units; None where there are too few
            clips for it.
    """

    clips: int
    widths: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if len(self.widths) != len(_PERCENTS):
            raise ValueError(f"{len(self.widths)} error quantiles, expected {len(_PERCENTS)}")

    @classmethod
    def of(cls, errors: npt.ArrayLike) -> Self:
        """Quantiles of absolute errors, [R]."""
        ordered = np.sort(np.asarray(errors, np.float64))
        clips = len(ordered)
        ranks = (-(-(clips + 1) * percent // 100) for percent in _PERCENTS)
        return cls(clips, tuple(round(float(ordered[rank - 1]), 6) if rank <= clips else None for rank in ranks))

    def half_width(self, level: float) -> float:
        """Half the width of an interval that contains a share `level` of labels, rounded up to whole percents.

        Raises:
            UserError: a level outside of what these errors support.
        """
        percent = math.ceil(round(level * 100, 9)) if math.isfinite(level) else 0
        known = [number for number, width in zip(_PERCENTS, self.widths, strict=True) if width is not None]
        if percent not in known:
            limit = f"{known[0] / 100:g} to {known[-1] / 100:g}" if known else "no level at all"
            raise UserError(
                f"The interval {level:g} is out of range: {self.clips:,} validation clips support {limit}. "
                "Give a share of labels in that range, such as 0.9."
            )
        return float(self.widths[percent - 1] or 0.0)


@dataclass(frozen=True)
class PredictionIntervals:
    """Intervals of one width, cut to the range of labels; no label is lost by that, because all are in the range.

    Attributes:
        half_width: distance of both ends from a prediction, in label units.
        clips: number of validation clips on whose errors it rests.
        low, high: lowest and highest label; infinite if they are unknown.
    """

    half_width: float
    clips: int
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_bounded(self) -> bool:
        """Whether the range of labels is known."""
        return math.isfinite(self.high - self.low)

    def around(self, prediction: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Lower and upper ends, of the shape of the predictions; NaN where these are."""
        value = np.asarray(prediction, np.float64)
        low, high = (np.clip(value + side * self.half_width, self.low, self.high) for side in (-1, 1))
        return low, high

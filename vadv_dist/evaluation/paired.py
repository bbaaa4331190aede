"""Confidence interval of a difference between two models evaluated on the same clips."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Number of resampled differences in memory at a time.
_CHUNK_VALUES = 1 << 22


class Interval(NamedTuple):
    """A mean and the interval around it."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def opposite(self) -> "Interval":
        """That of the difference with the opposite sign."""
        return Interval(-self.mean, -self.high, -self.low)


def paired_bootstrap(
    errors_a: npt.ArrayLike,
    errors_b: npt.ArrayLike,
    *,
    seed: int,
    num_samples: int = 10_000,
    confidence: float = 0.95,
) -> Interval:
    """Mean of `errors_a - errors_b` over clips, with a percentile bootstrap interval.

    Clips are resampled together with the errors of both models, so that the common difficulty of a clip cancels. The
    interval therefore covers the choice of clips. It does not cover training again with another seed.

    Args:
        errors_a: error of one model on each clip, [R], in any unit.
        errors_b: error of the other on the same clips in the same order, [R].
        seed: seed of the resampling; the same seed gives the same interval.
        num_samples: number of resamples.
        confidence: fraction of the resampled means inside the interval.
    Returns:
        The observed mean difference (positive: `a` has larger errors) and the interval, in the unit of the errors.
    Raises:
        ValueError: no clips, arrays of different or more than one dimension, a value that is not finite, fewer than one
            resample, or a confidence outside (0, 1).
    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    a, b = np.asarray(errors_a, np.float64), np.asarray(errors_b, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"errors_a has shape {list(a.shape)}, errors_b {list(b.shape)}; expected [R] for both")
    if a.size == 0:
        raise ValueError("there are no clips to resample")
    difference = a - b
    if not np.isfinite(difference).all():
        raise ValueError(f"{int((~np.isfinite(difference)).sum())} of {a.size} differences are not finite")
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}, expected at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number in (0, 1)")

    rng = np.random.default_rng(seed)
    means = np.empty(num_samples)
    step = max(1, _CHUNK_VALUES // difference.size)
    for start in range(0, num_samples, step):
        rows = rng.integers(0, difference.size, (min(step, num_samples - start), difference.size))
        means[start : start + len(rows)] = difference[rows].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(difference.mean()), float(low), float(high))

"""Confidence interval of any metric's mean over seeds, for the sampling of seeds and of clips.

Shape letters: S seeds, R clips, B resamples.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.paired import Interval

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Only a variance is estimated from the resamples: with 400, its standard deviation has an error of 3.5 %.
NUM_SAMPLES = 400


def clip_resamples(num_clips: int, seed: int, num_samples: int = NUM_SAMPLES) -> IntArray:
    """Rows of bootstrap resamples of R clips, [B, R]; models scored on the same resamples can be compared."""
    return np.random.default_rng(seed).integers(0, num_clips, (num_samples, num_clips))


def resampled_metrics(score: Callable[[IntArray], Mapping[str, float]], rows_BR: IntArray) -> dict[str, FloatArray]:
    """Metrics of one model on each resample, [B] each; NaN where a resample does not define a metric.

    Args:
        score: metrics of the clips in the given rows, [R].
        rows_BR: result of `clip_resamples`.
    """
    found: dict[str, FloatArray] = {}
    for number, rows in enumerate(rows_BR):
        for key, value in score(rows).items():
            found.setdefault(key, np.full(len(rows_BR), np.nan))[number] = value
    return found


def seeds_and_clips(
    value_S: npt.ArrayLike,
    resampled_BS: npt.ArrayLike | None = None,
    *,
    num_clips: int = 0,
    confidence: float = 0.95,
) -> Interval | None:
    """Mean over seeds of a metric, or of the difference of two models' metrics, with its interval.

    A bootstrap over a handful of seeds is too narrow (of five, the variance comes out a fifth too small, and the
    quantiles are those of many). Therefore the seeds' variance is Student's and that of the clips a bootstrap's, the
    part that both contain is counted once, and the degrees of freedom are Satterthwaite's. For a metric that is a mean
    over clips this is `crossed_interval`, estimated by resampling; other metrics have no mean squares.

    Args:
        value_S: value with each seed, [S].
        resampled_BS: the value with each seed on resamples of the clips that are the same for all seeds, [B, S]; None
            covers only the seeds. Resamples with a value that is not finite are left out.
        num_clips: R, with `resampled_BS`.
        confidence: coverage probability of the interval.
    Returns:
        mean and interval; None for a single seed without resamples, which has no interval.
    Raises:
        ValueError: no seeds, a value that is not finite, shapes that do not match, or a confidence outside (0, 1).
    Source:
        Satterthwaite, An approximate distribution of estimates of variance components (1946); Efron and Tibshirani, An
        Introduction to the Bootstrap (1993), chapter 6.
    """
    from scipy import stats

    value = np.asarray(value_S, np.float64)
    if value.ndim != 1 or not value.size or not np.isfinite(value).all():
        raise ValueError(f"values have shape {list(value.shape)}, expected [S] finite numbers of at least one seed")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number in (0, 1)")
    seeds, mean = value.size, float(value.mean())

    def reach(variance: float, freedom: float) -> float:
        return math.sqrt(variance) * float(stats.t.ppf((1 + confidence) / 2, freedom))

    of_seeds = float(value.var(ddof=1)) / seeds if seeds > 1 else 0.0
    widest = reach(of_seeds, seeds - 1) if seeds > 1 else 0.0
    if resampled_BS is not None:
        resampled = np.asarray(resampled_BS, np.float64)
        if resampled.ndim != 2 or resampled.shape[1] != seeds:
            raise ValueError(f"resampled values have shape {list(resampled.shape)}, expected [B, {seeds}]")
        resampled = resampled[np.isfinite(resampled).all(axis=1)]
    if resampled_BS is None or len(resampled) < 2 or num_clips < 2:
        return Interval(mean, mean - widest, mean + widest) if seeds > 1 else None
    of_clips = float(resampled.mean(axis=1).var(ddof=1))
    of_both = 0.0
    if seeds > 1:  # what seed and clip do together is in both variances
        of_both = max(float(resampled.var(axis=0, ddof=1).mean()) - of_clips, 0.0) / (seeds - 1)
    variance = of_seeds + max(of_clips - of_both, 0.0)
    if variance > 0:
        spread = (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0) + of_clips**2 / (num_clips - 1)
        least = min(seeds, num_clips) - 1 if seeds > 1 else num_clips - 1
        widest = max(widest, reach(variance, max(variance**2 / spread, least) if spread else num_clips - 1))
    return Interval(mean, mean - widest, mean + widest)

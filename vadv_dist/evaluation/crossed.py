"""Confidence interval of a difference between two configurations, from several seeds evaluated on the same clips.

Shape letters: S seeds, R clips.
"""

import math

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.paired import Interval


def crossed_interval(difference_SR: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of differences over seeds and clips, with an interval that covers the sampling of both.

    A difference is modelled as a mean plus a seed effect, a clip effect and a residual, all independent (two-way random
    effects without replication). Student's interval over the seeds' means would be valid only for these clips; a
    bootstrap over clips only for these trained models. With few seeds a bootstrap over seeds is too narrow, so the
    variance is estimated from mean squares and the degrees of freedom by Satterthwaite's formula. A component with
    negative estimated variance counts as 0, and the interval is never narrower than Student's over the seeds.

    Args:
        difference_SR: error of one configuration minus that of the other, by seed and clip, [S, R].
        confidence: coverage probability of the interval.
    Raises:
        ValueError: fewer than two seeds or clips, a value that is not finite, or a confidence outside (0, 1).
    Source:
        Searle, Casella and McCulloch, Variance Components (1992), chapter 4; Satterthwaite (1946).
    """
    from scipy import stats

    difference = np.asarray(difference_SR, np.float64)
    if difference.ndim != 2 or min(difference.shape) < 2:
        raise ValueError(f"differences have shape {list(difference.shape)}, expected [S, R] with at least 2 of each")
    if not np.isfinite(difference).all():
        raise ValueError(f"{int((~np.isfinite(difference)).sum())} of {difference.size} differences are not finite")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number in (0, 1)")
    seeds, clips = difference.shape
    mean = float(difference.mean())
    seed_S, clip_R = difference.mean(axis=1), difference.mean(axis=0)
    rest_SR = difference - seed_S[:, None] - clip_R + mean
    square_seed = clips * float(((seed_S - mean) ** 2).sum()) / (seeds - 1)
    square_clip = seeds * float(((clip_R - mean) ** 2).sum()) / (clips - 1)
    square_rest = float((rest_SR**2).sum()) / ((seeds - 1) * (clips - 1))

    def reach(variance: float, freedom: float) -> float:
        return math.sqrt(variance / difference.size) * float(stats.t.ppf((1 + confidence) / 2, freedom))

    widest = reach(square_seed, seeds - 1)
    if square_clip > square_rest:
        variance = square_seed + square_clip - square_rest
        spread = square_seed**2 / (seeds - 1) + square_clip**2 / (clips - 1)
        spread += square_rest**2 / ((seeds - 1) * (clips - 1))
        # A difference of mean squares can give less than one degree of freedom, and an infinite interval.
        widest = max(widest, reach(variance, max(variance**2 / spread, min(seeds, clips) - 1)))
    return Interval(mean, mean - widest, mean + widest)

"""How sure a difference between two configurations is, given several seeds that all read the same clips.

Shape letters: S seeds, R clips.
"""

import math

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.paired import Interval


def crossed_interval(difference_SR: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of differences over seeds and clips, with an interval that holds the choice of both.

    A difference is taken to be a mean, plus a part of its seed, a part of its clip and a rest, all drawn independently
    (two-way random effects without replication). Student's interval over the seeds' means alone would be right for
    these clips only; a bootstrap over clips alone for these trained models only. With few seeds a bootstrap over seeds
    is too narrow, so the variance is estimated by mean squares and the degrees of freedom by Satterthwaite's formula.
    A part whose estimated variance is negative counts as 0, and the interval is never narrower than Student's over the
    seeds.

    Args:
        difference_SR: error of one configuration minus that of the other, by seed and clip, [S, R].
        confidence: share of such intervals that hold the true mean.
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
        raise ValueError(f"confidence is {confidence}, expected a share in (0, 1)")
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
        # A difference of mean squares can leave less than one degree, and an interval without end.
        widest = max(widest, reach(variance, max(variance**2 / spread, min(seeds, clips) - 1)))
    return Interval(mean, mean - widest, mean + widest)

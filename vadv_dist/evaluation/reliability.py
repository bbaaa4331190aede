"""How far predictions can be taken at their word: the labels, or the share of right clips, of clips predicted alike.

Shape letters: R clips, C classes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import FloatArray
from vadv_dist.evaluation.paired import Interval, paired_bootstrap

# Bins of the expected calibration error; 15 as in Guo et al.
CLASS_BINS = 15
_MOST_BINS, _CLIPS_PER_BIN = 10, 10
_Z = 1.959963984540054  # of a 95 % interval


@dataclass(frozen=True)
class Bin:
    """Clips predicted about alike.

    Attributes:
        clips: their number.
        predicted: their mean prediction, or mean probability of the predicted class.
        observed: their mean label, or the share that is right, with a 95 % interval over clips.
    """

    clips: int
    predicted: float
    observed: Interval


@dataclass(frozen=True)
class Reliability:
    """Predictions compared with what was observed, by bin.

    Attributes:
        bins: those with clips, by prediction, lowest first.
        gap: mean over clips of the distance between predicted and observed of their bin. Of classes, this is the
            expected calibration error.
    """

    bins: tuple[Bin, ...]
    gap: float


def value_reliability(prediction_R: npt.ArrayLike, label_R: npt.ArrayLike) -> Reliability | None:
    """Mean label by bin of predictions; up to ten bins of equal numbers of clips, at least ten in each.

    Equal predictions are in one bin.

    Args:
        prediction_R, label_R: in label units, finite.
    Returns:
        None if there are not two bins: fewer than 20 clips, or one prediction for most of them.
    """
    prediction, label = np.asarray(prediction_R, np.float64), np.asarray(label_R, np.float64)
    most = min(_MOST_BINS, len(prediction) // _CLIPS_PER_BIN)
    if most < 2:
        return None
    # The last prediction of each bin.
    last = np.unique(np.quantile(prediction, np.arange(1, most + 1) / most, method="inverted_cdf"))
    bin_R = np.searchsorted(last, prediction, side="left")
    return _reliability(prediction, label, bin_R) if len(last) > 1 else None


def class_reliability(probability_RC: npt.ArrayLike, label_R: npt.ArrayLike, bins: int = CLASS_BINS) -> Reliability:
    """Share of right clips by probability of the predicted class, in equal bins ((m - 1) / M, m / M].

    Args:
        probability_RC: probabilities of the classes, finite, R ≥ 1.
        label_R: class of each clip, from 0.
        bins: number M of bins.
    Source:
        Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks (arXiv:1706.04599), eq. 3.
    """
    probability, label = np.asarray(probability_RC, np.float64), np.asarray(label_R)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    bin_R = np.searchsorted(np.arange(1, bins) / bins, confidence, side="left")
    return _reliability(confidence, right, bin_R)


def mean_interval(value_R: npt.ArrayLike) -> Interval:
    """A mean over clips with its 95 % interval: Wilson's of a share (booleans), a percentile bootstrap of numbers."""
    values = np.asarray(value_R)
    if values.dtype == np.bool_:
        return share_interval(int(values.sum()), len(values))
    return paired_bootstrap(values, np.zeros(len(values)), seed=0, num_samples=2000)


def share_interval(hits: int, clips: int) -> Interval:
    """A share with its 95 % score interval, which stays within [0, 1] and has a width also at 0 and 1.

    Source:
        Wilson (1927); recommended for few clips by Brown, Cai and DasGupta, Interval Estimation for a Binomial
        Proportion (2001).
    """
    share, weight = hits / clips, _Z**2 / clips
    middle = (share + weight / 2) / (1 + weight)
    reach = _Z * math.sqrt(share * (1 - share) / clips + weight / (4 * clips)) / (1 + weight)
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def _reliability(predicted_R: FloatArray, observed_R: npt.NDArray[Any], bin_R: npt.NDArray[Any]) -> Reliability:
    bins, gap = [], 0.0
    for number in np.unique(bin_R):
        mine = bin_R == number
        found = Bin(int(mine.sum()), float(predicted_R[mine].mean()), mean_interval(observed_R[mine]))
        bins.append(found)
        gap += found.clips * abs(found.predicted - found.observed.mean) / len(predicted_R)
    return Reliability(tuple(bins), gap)

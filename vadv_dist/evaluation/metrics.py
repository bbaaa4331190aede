"""Metrics of sentiment regression: plain arrays in, numbers out, without rounding."""

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import FloatArray, IntArray


def checked(prediction: npt.ArrayLike, label: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Predictions and labels as fp64, [R] each.

    Raises:
        ValueError: no rows, arrays of different or more than one dimension, or a value that is not finite.
    """
    p, y = np.asarray(prediction, np.float64), np.asarray(label, np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"prediction has shape {list(p.shape)}, label {list(y.shape)}; expected [R] for both")
    if p.size == 0:
        raise ValueError("there are no rows to score")
    for name, values in (("prediction", p), ("label", y)):
        bad = int(values.size - np.isfinite(values).sum())
        if bad:
            raise ValueError(f"{name} has {bad} of {values.size} values that are not finite")
    return p, y


def pearson(p: FloatArray, y: FloatArray) -> float:
    """Pearson's correlation; NaN if either side is constant (as with a single row)."""
    # A constant is detected by its values, because its computed variance need not be exactly zero.
    if np.ptp(p) == 0 or np.ptp(y) == 0:
        return float("nan")
    p, y = p - p.mean(), y - y.mean()
    # Scale each side by its largest value first, so that squares neither underflow nor overflow.
    p, y = p / np.abs(p).max(), y / np.abs(y).max()
    return float(np.clip((p @ y) / np.sqrt((p @ p) * (y @ y)), -1.0, 1.0))


def accuracy(predicted: IntArray, truth: IntArray) -> float:
    """Fraction of rows whose class is correct."""
    return float((predicted == truth).mean())


def weighted_f1(predicted: IntArray, truth: IntArray) -> float:
    """F1 of each class, weighted by its number of rows; a class without rows has no weight."""
    total = 0.0
    for one in np.unique(truth):
        hit, real = predicted == one, truth == one
        support = int(real.sum())
        total += support * 2 * int((hit & real).sum()) / (int(hit.sum()) + support)
    return total / truth.size

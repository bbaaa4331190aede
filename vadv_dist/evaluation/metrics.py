"""Metrics of sentiment regression: plain arrays in, numbers out; nothing is rounded."""

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import FloatArray, IntArray


def checked(prediction: npt.ArrayLike, label: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Predictions and labels as fp64, [R] each.

    Raises:
        ValueError: no rows, arrays of different or other than one dimension, or a value that is not finite.
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
    """Pearson's correlation; nan where either side is constant (so for a single row)."""
    # A constant side is told by its values: its variance need not come out as exactly zero.
    if np.ptp(p) == 0 or np.ptp(y) == 0:
        return float("nan")
    p, y = p - p.mean(), y - y.mean()
    # Each side is scaled by its largest value first, so that squares neither vanish nor overflow.
    p, y = p / np.abs(p).max(), y / np.abs(y).max()
    return float(np.clip((p @ y) / np.sqrt((p @ p) * (y @ y)), -1.0, 1.0))


def accuracy(predicted: IntArray, truth: IntArray) -> float:
    """Share of rows whose class is right."""
    return float((predicted == truth).mean())


def weighted_f1(predicted: IntArray, truth: IntArray) -> float:
    """F1 of each class, weighted by the rows of each class; a class without rows weighs nothing."""
    total = 0.0
    for one in np.unique(truth):
        hit, real = predicted == one, truth == one
        support = int(real.sum())
        total += support * 2 * int((hit & real).sum()) / (int(hit.sum()) + support)
    return total / truth.size

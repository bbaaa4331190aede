"""Metrics of sentiment regression, in the two conventions that papers on CMU-MOSI and CMU-MOSEI publish.

They equal those of MMSA's `metricsTop` module, which rounds to four digits; here nothing is rounded.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

METRICS = ("mae", "corr", "a7", "a2_has0", "a2_non0", "f1_has0", "f1_non0")


def regression_metrics(prediction: npt.ArrayLike, label: npt.ArrayLike) -> dict[str, float]:
    """Score predicted sentiment against labels in [-3, 3].

    Args:
        prediction: predicted sentiment, [R], any finite numbers; only `a7` clips them.
        label: annotated sentiment, [R].
    Returns:
        `mae`: mean absolute error, in label units.
        `corr`: Pearson's correlation; nan where either side is constant (so for a single row).
        `a7`: share of rows whose class of seven is right: both clipped to [-3, 3], rounded half to even.
        `a2_has0`, `f1_has0`: accuracy and weighted F1 of the sign over all rows, zero counting as positive.
        `a2_non0`, `f1_non0`: the same over the rows whose label is not zero, positive meaning > 0; nan where
            every label is zero.
        Shares are fractions in [0, 1].
    Raises:
        ValueError: no rows, arrays of different or other than one dimension, or a value that is not finite.
    """
    p, y = _checked(prediction, label)
    nonzero = y != 0
    positive_has0, truth_has0 = p >= 0, y >= 0
    positive_non0, truth_non0 = p[nonzero] > 0, y[nonzero] > 0
    return {
        "mae": float(np.abs(p - y).mean()),
        "corr": _pearson(p, y),
        "a7": float((seven_classes(p) == seven_classes(y)).mean()),
        "a2_has0": _accuracy(positive_has0, truth_has0),
        "a2_non0": _accuracy(positive_non0, truth_non0),
        "f1_has0": _weighted_f1(positive_has0, truth_has0),
        "f1_non0": _weighted_f1(positive_non0, truth_non0),
    }


def confusion_7(prediction: npt.ArrayLike, label: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count rows by class of seven: [7, 7], label's class by row and predicted class by column, -3 first.

    Raises:
        ValueError: as `regression_metrics`.
    """
    p, y = _checked(prediction, label)
    cells = (seven_classes(y) + 3) * 7 + seven_classes(p) + 3
    return np.bincount(cells, minlength=49).astype(np.int64).reshape(7, 7)


def seven_classes(values: FloatArray) -> npt.NDArray[np.int64]:
    """Class in -3..3 of each value, [R]: clipped, then rounded half to even as MMSA does."""
    return np.round(np.clip(values, -3.0, 3.0)).astype(np.int64)


def _checked(prediction: npt.ArrayLike, label: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
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


def _pearson(p: FloatArray, y: FloatArray) -> float:
    # A constant side is told by its values: its variance need not come out as exactly zero.
    if np.ptp(p) == 0 or np.ptp(y) == 0:
        return float("nan")
    p, y = p - p.mean(), y - y.mean()
    # Each side is scaled by its largest value first, so that squares neither vanish nor overflow.
    p, y = p / np.abs(p).max(), y / np.abs(y).max()
    return float(np.clip((p @ y) / np.sqrt((p @ p) * (y @ y)), -1.0, 1.0))


def _accuracy(positive: BoolArray, truth: BoolArray) -> float:
    return float((positive == truth).mean()) if truth.size else float("nan")


def _weighted_f1(positive: BoolArray, truth: BoolArray) -> float:
    """F1 of both classes, weighted by the rows of each class; a class without rows weighs nothing."""
    if not truth.size:
        return float("nan")
    total = 0.0
    for hit, real in ((positive, truth), (~positive, ~truth)):
        support = int(real.sum())
        if support:
            true_positives = int((hit & real).sum())
            total += support * 2 * true_positives / (int(hit.sum()) + support)
    return total / truth.size

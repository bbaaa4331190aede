"""Metrics of predicted classes: plain arrays in, numbers out, equal to those of scikit-learn.

Shape letters: R clips, C classes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import FloatArray, IntArray
from vadv_dist.evaluation.description import Metric, Output

ACCURACY = Metric("accuracy", "Accuracy")
METRICS = (ACCURACY, Metric("f1_macro", "F1", convention="macro"), Metric("f1_weighted", "F1", convention="weighted"))
NOTES = (
    "The predicted class is the one with the highest probability. Macro F1 is the mean over the classes that have a "
    "label or a prediction, weighted F1 that over the clips of each class."
)

# The shares of `ClassScores`.
CLASS_TITLES = ("Precision", "Recall", "F1")
CLASS_NOTES = (
    "Precision is the share of a class’s predictions that are right, recall that of its clips that are found, and F1 "
    "their harmonic mean."
)


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of each class, and its number of clips, each [C]; 0 where a share is undefined."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray
    support: IntArray


def predicted_classes(probability_RC: npt.ArrayLike) -> IntArray:
    """The likeliest class of each clip, [R]; of equally likely ones the first."""
    return np.asarray(probability_RC).argmax(axis=1)


def confusion(predicted_R: npt.ArrayLike, label_R: npt.ArrayLike, num_classes: int) -> IntArray:
    """Count clips by class: [C, C], rows by the label and columns by the prediction."""
    cells = np.asarray(label_R, np.int64) * num_classes + np.asarray(predicted_R, np.int64)
    return np.bincount(cells, minlength=num_classes**2).astype(np.int64).reshape(num_classes, num_classes)


def class_scores(confusion_CC: IntArray) -> ClassScores:
    """Precision, recall and F1 of each class of a confusion matrix."""
    hits, support, predicted = confusion_CC.diagonal(), confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)

    def share(part: IntArray, whole: IntArray) -> FloatArray:
        return np.asarray(part / np.maximum(whole, 1), np.float64)

    return ClassScores(share(hits, predicted), share(hits, support), share(2 * hits, predicted + support), support)


def score(probability_RC: npt.ArrayLike, label_R: npt.ArrayLike) -> dict[str, float]:
    """Score predicted probabilities of R clips.

    Args:
        probability_RC: probability of each class, or other values of which the highest is the prediction.
        label_R: class of each clip, from 0.
    Returns:
        value by key of `METRICS`.
    Raises:
        ValueError: no rows, arrays of other shapes, a value that is not finite, or a label that is not a class.
    """
    counts_CC = _counts(probability_RC, label_R)
    found, total = class_scores(counts_CC), counts_CC.sum()
    appears = (found.support + counts_CC.sum(axis=0)) > 0
    return {
        "accuracy": float(counts_CC.trace() / total),
        "f1_macro": float(found.f1[appears].mean()),
        "f1_weighted": float(found.f1 @ found.support / total),
    }


def beyond_constant(probability_RC: npt.ArrayLike, label_R: npt.ArrayLike) -> dict[str, float]:
    """Statistics that distinguish a model from a constant.

    Args:
        probability_RC, label_R: as in `score`.
    Returns:
        `clips`; `predicted_classes`, how many classes are predicted; `constant_accuracy`, that of the most frequent
        class of these clips; and `kappa`, Cohen's: 0 for a constant or chance, 1 if all are correct, NaN if all labels
        and predictions are one class.
    """
    counts_CC = _counts(probability_RC, label_R)
    total, label_C, predicted_C = int(counts_CC.sum()), counts_CC.sum(axis=1), counts_CC.sum(axis=0)
    accuracy, by_chance = float(counts_CC.trace() / total), float((label_C / total) @ (predicted_C / total))
    return {
        "clips": total,
        "predicted_classes": int((predicted_C > 0).sum()),
        "constant_accuracy": float(label_C.max() / total),
        "kappa": float("nan") if by_chance == 1 else (accuracy - by_chance) / (1 - by_chance),
    }


def _counts(probability_RC: npt.ArrayLike, label_R: npt.ArrayLike) -> IntArray:
    p, y = np.asarray(probability_RC, np.float64), np.asarray(label_R)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise ValueError(f"probability has shape {list(p.shape)}, label {list(y.shape)}; expected [R, C] and [R]")
    if not len(y):
        raise ValueError("there are no rows to score")
    if not np.isfinite(p).all():
        raise ValueError(f"{int((~np.isfinite(p)).any(axis=1).sum())} of {len(p)} rows are not finite")
    if not np.isin(y, np.arange(p.shape[1])).all():
        raise ValueError(f"labels are not all integers from 0 to {p.shape[1] - 1}")
    return confusion(predicted_classes(p), y, p.shape[1])


def class_remarks(metrics: Mapping[str, Mapping[str, float | None]], outputs: Iterable[Output]) -> list[str]:
    """One sentence for each output that predicts one class, or is no better than a constant.

    Args:
        metrics: results of `score` and `beyond_constant` by name of the output; missing values are ignored.
        outputs: outputs to check; one without scores is skipped.
    """
    found = ((output.phrase, class_remark(metrics[output.name])) for output in outputs if output.name in metrics)
    return [f"The {phrase} {text}." for phrase, text in found if text is not None]


def class_remark(scores: Mapping[str, float | None]) -> str | None:
    accuracy, constant = scores.get("accuracy"), scores.get("constant_accuracy")
    if accuracy is None or constant is None or constant == 1:
        return None
    if scores.get("predicted_classes") == 1:
        return "predicts the same class for every clip"
    if accuracy <= constant:
        return (
            f"is no better than a constant: the most frequent class is that of {constant:.1%} of these clips, this "
            f"model’s is right for {accuracy:.1%}"
        )
    return None

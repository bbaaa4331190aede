"""Whether a reader has learned anything: how far its predictions spread, and what a constant would have scored."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.description import Output

# A reader whose predictions spread less than this share of the labels' spread is called constant.
CONSTANT_SHARE = 0.01


def spread(prediction: npt.ArrayLike, label: npt.ArrayLike, constant: float | None) -> dict[str, float]:
    """What tells a reader from a constant.

    Args:
        prediction, label: of the clips that the reader answers, [R] each.
        constant: the best constant that training could tell, the median of its labels; None where it is not known.
    Returns:
        `clips`, `prediction_std`, `label_std` and, where `constant` is known, `constant_mae`: its mean absolute error.
    """
    p, y = np.asarray(prediction, np.float64), np.asarray(label, np.float64)
    found = {"clips": len(y), "prediction_std": float(p.std()), "label_std": float(y.std())}
    return found if constant is None else {**found, "constant_mae": float(np.abs(y - constant).mean())}


def remark(scores: Mapping[str, float | None]) -> str | None:
    """What is wrong with a reader, as the end of a sentence about it; None where nothing is.

    Args:
        scores: its `mae` and what `spread` gave; values that are missing say nothing.
    """
    deviation, labels = scores.get("prediction_std"), scores.get("label_std")
    if deviation is not None and labels is not None and deviation < CONSTANT_SHARE * labels:
        return (
            f"predicts one constant: its predictions have a standard deviation of {deviation:.2g}, the labels one of "
            f"{labels:.2g}"
        )
    mae, constant = scores.get("mae"), scores.get("constant_mae")
    if mae is not None and constant is not None and mae >= constant:
        return (
            f"is no better than a constant: the median of the training labels has an MAE of {constant:.3f} on these "
            f"clips, this reader {mae:.3f}"
        )
    return None


def remarks(metrics: Mapping[str, Mapping[str, float | None]], outputs: Iterable[Output]) -> list[str]:
    """A sentence for each output that is a constant or no better than one.

    Args:
        metrics: scores by name of the output.
        outputs: those to look at; one without scores is left out.
    """
    found = ((output.phrase, remark(metrics[output.name])) for output in outputs if output.name in metrics)
    return [f"The {phrase} {text}." for phrase, text in found if text is not None]

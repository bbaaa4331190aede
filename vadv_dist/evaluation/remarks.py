"""Whether a model has learned anything: the spread of its predictions compared with a constant prediction."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.description import Output

# A model is called constant if its predictions' spread is below this fraction of the labels' spread.
CONSTANT_SHARE = 0.01


def spread(prediction: npt.ArrayLike, label: npt.ArrayLike, constant: float | None) -> dict[str, float]:
    """Statistics that distinguish a model from a constant.

    Args:
        prediction, label: of the scored clips, [R] each.
        constant: the best constant known from training, the median of its labels; None if unknown.
    Returns:
        `clips`, `prediction_std`, `label_std` and, if `constant` is known, `constant_mae`: its mean absolute error.
    """
    p, y = np.asarray(prediction, np.float64), np.asarray(label, np.float64)
    found = {"clips": len(y), "prediction_std": float(p.std()), "label_std": float(y.std())}
    return found if constant is None else {**found, "constant_mae": float(np.abs(y - constant).mean())}


def remark(scores: Mapping[str, float | None]) -> str | None:
    """What is wrong with a model, as the end of a sentence about it; None if nothing is.

    Args:
        scores: its `mae` and the result of `spread`; missing values are ignored.
    """
    deviation, labels = scores.get("prediction_std"), scores.get("label_std")
    if deviation is not None and labels is not None and deviation < CONSTANT_SHARE * labels:
        return (
            f"predicts a constant: the standard deviation of its predictions is {deviation:.2g}, that of the labels "
            f"{labels:.2g}"
        )
    mae, constant = scores.get("mae"), scores.get("constant_mae")
    if mae is not None and constant is not None and mae >= constant:
        return (
            f"is no better than a constant: the median of the training labels has an MAE of {constant:.3f} on these "
            f"clips, this model {mae:.3f}"
        )
    return None


def remarks(metrics: Mapping[str, Mapping[str, float | None]], outputs: Iterable[Output]) -> list[str]:
    """One sentence for each output that is constant or no better than a constant.

    Args:
        metrics: scores by name of the output.
        outputs: outputs to check; one without scores is skipped.
    """
    found = ((output.phrase, remark(metrics[output.name])) for output in outputs if output.name in metrics)
    return [f"The {phrase} {text}." for phrase, text in found if text is not None]

"""What a student's predictions are as columns and rows: numbers, or the likeliest class and a probability of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PREDICTION_COLUMN = "prediction"
FloatArray = npt.NDArray[np.float32]


def probability_column(name: str) -> str:
    """The column with the probability of a class."""
    return f"probability_{name}"


def prediction_columns(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of a student's predictions; `classes` are those that it predicts, none for a number."""
    return (PREDICTION_COLUMN, *map(probability_column, classes))


def columns_of_predictions(predictions: FloatArray, classes: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Predictions by column.

    Args:
        predictions: in label units, [R], or probabilities of classes, [R, C]; NaN for a row without a prediction.
        classes: names of the classes; none for numbers.
    Returns:
        numbers [R]; names of the likeliest classes are strings, None for a row without one.
    """
    if not classes:
        return {PREDICTION_COLUMN: predictions}
    best = np.nan_to_num(predictions).argmax(axis=1)
    names = np.array(classes, dtype=object)[best]
    names[np.isnan(predictions).any(axis=1)] = None
    return {
        PREDICTION_COLUMN: names,
        **{probability_column(name): predictions[:, one] for one, name in enumerate(classes)},
    }


def described_prediction(prediction: npt.ArrayLike | None, classes: Sequence[str]) -> dict[str, Any]:
    """One text's prediction as a part of a JSON object.

    Args:
        prediction: a number in label units, or probabilities, [C]; None for a text without one.
        classes: names of the classes; none for numbers.
    """
    if not classes:
        return {PREDICTION_COLUMN: None if prediction is None else float(np.asarray(prediction))}
    if prediction is None:
        return {PREDICTION_COLUMN: None, "probabilities": None}
    values = np.asarray(prediction)
    shares = {name: float(value) for name, value in zip(classes, values, strict=True)}
    return {PREDICTION_COLUMN: classes[int(values.argmax())], "probabilities": shares}

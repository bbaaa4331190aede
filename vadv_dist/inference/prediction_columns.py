"""What a student's predictions are as columns and rows: numbers, or the likeliest class and a probability of each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PREDICTION_COLUMN, WORD_COLUMN = "prediction", "prediction_word"
NO_WORDS: Mapping[str, float] = {}
FloatArray = npt.NDArray[np.float32]


def probability_column(name: str) -> str:
    """The column with the probability of a class."""
    return f"probability_{name}"


def prediction_columns(classes: Sequence[str], words: Mapping[str, float] = NO_WORDS) -> tuple[str, ...]:
    """Names of the columns of a student's predictions.

    Args:
        classes: those that it predicts; none for a number.
        words: numbers by the words that stood for them in the training data.
    """
    return (PREDICTION_COLUMN, *map(probability_column, classes), *([WORD_COLUMN] if words and not classes else []))


def nearest_words(predictions: npt.ArrayLike, words: Mapping[str, float]) -> list[str | None]:
    """The word whose number is nearest to each prediction, the lower one of two; None for NaN.

    Args:
        predictions: [R].
        words: number by word; of several with one number, the first is taken.
    """
    names = sorted(words, key=words.__getitem__)
    values = np.array([words[name] for name in names])
    return [
        None if np.isnan(value) else names[int(np.abs(values - value).argmin())]
        for value in np.asarray(predictions, np.float64)
    ]


def columns_of_predictions(
    predictions: FloatArray, classes: Sequence[str], words: Mapping[str, float] = NO_WORDS
) -> dict[str, npt.NDArray[Any]]:
    """Predictions by column.

    Args:
        predictions: in label units, [R], or probabilities of classes, [R, C]; NaN for a row without a prediction.
        classes: names of the classes; none for numbers.
        words: numbers by the words that stood for them in the training data.
    Returns:
        numbers [R]; names of the likeliest classes are strings, None for a row without one.
    """
    if not classes:
        found: dict[str, npt.NDArray[Any]] = {PREDICTION_COLUMN: predictions}
        return found | ({WORD_COLUMN: np.array(nearest_words(predictions, words), dtype=object)} if words else {})
    best = np.nan_to_num(predictions).argmax(axis=1)
    names = np.array(classes, dtype=object)[best]
    names[np.isnan(predictions).any(axis=1)] = None
    return {
        PREDICTION_COLUMN: names,
        **{probability_column(name): predictions[:, one] for one, name in enumerate(classes)},
    }


def described_prediction(
    prediction: npt.ArrayLike | None, classes: Sequence[str], words: Mapping[str, float] = NO_WORDS
) -> dict[str, Any]:
    """One text's prediction as a part of a JSON object.

    Args:
        prediction: a number in label units, or probabilities, [C]; None for a text without one.
        classes: names of the classes; none for numbers.
        words: numbers by the words that stood for them in the training data.
    """
    if not classes:
        value = None if prediction is None else float(np.asarray(prediction))
        nearest = None if value is None or not words else nearest_words([value], words)[0]
        return {PREDICTION_COLUMN: value, **({WORD_COLUMN: nearest} if words else {})}
    if prediction is None:
        return {PREDICTION_COLUMN: None, "probabilities": None}
    values = np.asarray(prediction)
    shares = {name: float(value) for name, value in zip(classes, values, strict=True)}
    return {PREDICTION_COLUMN: classes[int(values.argmax())], "probabilities": shares}

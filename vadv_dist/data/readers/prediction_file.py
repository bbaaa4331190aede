"""Read predictions that another program made: a CSV file of `clip_id`, `prediction` and, if it has them, `split`.

Classes are predicted by their names, or numbers from 0; if the file has a column `probability_<class>` of each, as
`vadv predict` writes it, the probabilities are read too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.data.readers.splits import SPLIT_NAMES
from vadv_dist.errors import UserError, did_you_mean, similar_file
from vadv_dist.formats.csv_lines import csv_lines, decimal_comma, number_of

_COLUMNS = ("clip_id", "prediction")
_SPLIT = "split"
_PROBABILITY = "probability_"
# Rounding of probabilities in text: of their sum, and of the highest.
_SUM_TOLERANCE, _TIE_TOLERANCE = 0.01, 1e-6


@dataclass(frozen=True)
class Prediction:
    """A clip's prediction, the line that it is in, and its split if the file names it.

    Attributes:
        values: one number in label units; or a probability of each class, 1 for the predicted one if the file has none.
    """

    where: str
    values: tuple[float, ...]
    split: str | None


def read_predictions(path: Path, classes: Sequence[str] = ()) -> dict[str, Prediction]:
    """Read predictions by clip id.

    Args:
        path: the file.
        classes: names of the classes in order; none if labels are numbers.
    Raises:
        UserError: no such file, not a CSV, a column is missing, an unknown split, a clip with two rows, or a prediction
            that is not a number or not a class.
    """
    if not path.is_file():
        what = "is a folder, expected a CSV file" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}.{similar_file(path)} Give a CSV file of clip_id and prediction.")
    found: dict[str, Prediction] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv_lines(file, path)
        _, header = next(lines, (1, []))
        _require_columns(path, header, classes)
        for number, cells in lines:
            if not cells:
                continue
            where = f"{path} line {number}"
            if len(cells) != len(header):
                raise UserError(f"{where} has {len(cells)} cells, but the header line has {len(header)}. Fix the row.")
            clip_id, prediction = _prediction(dict(zip(header, cells, strict=True)), where, classes)
            if clip_id in found:
                first = found[clip_id].where.removeprefix(f"{path} ")
                raise UserError(f"{where}: clip {clip_id!r} is already in {first}. Keep one prediction of each clip.")
            found[clip_id] = prediction
    if not found:
        raise UserError(f"{path} has a header line but no rows.")
    return found


def _require_columns(path: Path, header: list[str], classes: Sequence[str]) -> None:
    probabilities = [f"{_PROBABILITY}{name}" for name in classes]
    if not set(probabilities) & set(header):
        probabilities = []
    for name in (*_COLUMNS, *probabilities):
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r} (columns: {', '.join(header[:30]) or 'none'})."
                f"{did_you_mean(name, header)} Its header line must name clip_id and prediction; split may follow"
                f"{', and a probability of every class' if classes else ''}."
            )
    for name in (*_COLUMNS, *probabilities, _SPLIT):
        if header.count(name) > 1:
            raise UserError(f"{path} has {header.count(name)} columns named {name!r}. Rename all but one.")


def _prediction(row: Mapping[str, str], where: str, classes: Sequence[str]) -> tuple[str, Prediction]:
    clip_id = row["clip_id"].strip().replace("$_$", "_")  # MMSA's ids, `video$_$clip`
    split = row.get(_SPLIT)
    what = f"{where}: the prediction for {clip_id!r}"
    values = _probabilities(row, what, classes) if classes else (_number(row["prediction"], what),)
    if split is not None and split.strip().lower() not in SPLIT_NAMES:
        raise UserError(f"{where}: split is {split!r}, expected one of {', '.join(SPLIT_NAMES)}.")
    return clip_id, Prediction(where, values, None if split is None else SPLIT_NAMES[split.strip().lower()])


def _number(cell: str, what: str) -> float:
    value = number_of(cell)
    if not math.isfinite(value):
        raise UserError(f"{what} is {cell!r}, expected a finite number.{decimal_comma(cell)}")
    return value


def _probabilities(row: Mapping[str, str], what: str, classes: Sequence[str]) -> tuple[float, ...]:
    """The probabilities of a row, or 1 for its class."""
    cell = row["prediction"].strip()
    folded = [name.casefold() for name in classes]
    number = number_of(cell)
    if cell.casefold() in folded:
        predicted = folded.index(cell.casefold())
    elif number in range(len(classes)):
        predicted = int(number)
    else:
        raise UserError(
            f"{what} is {row['prediction']!r}, expected one of {', '.join(classes)}, or a number from 0 to "
            f"{len(classes) - 1}.{did_you_mean(cell, classes)}"
        )
    if f"{_PROBABILITY}{classes[0]}" not in row:
        return tuple(float(one == predicted) for one in range(len(classes)))
    values = tuple(number_of(row[f"{_PROBABILITY}{name}"]) for name in classes)
    if not all(0 <= value <= 1 for value in values) or abs(sum(values) - 1) > _SUM_TOLERANCE:
        shown = ", ".join(row[f"{_PROBABILITY}{name}"] for name in classes)
        raise UserError(f"{what} has the probabilities {shown}, expected numbers from 0 to 1 with the sum 1.")
    best = max(range(len(classes)), key=values.__getitem__)
    if values[best] - values[predicted] > _TIE_TOLERANCE:
        raise UserError(f"{what} is {cell!r}, but {classes[best]!r} has the highest probability. Let them agree.")
    return values

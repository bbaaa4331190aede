"""Read predictions that another program made: a CSV file of `clip_id`, `prediction` and, if it has them, `split`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.data.readers.splits import SPLIT_NAMES
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.formats.csv_lines import csv_lines, decimal_comma, number_of

_COLUMNS = ("clip_id", "prediction")
_SPLIT = "split"


@dataclass(frozen=True)
class Prediction:
    """A clip's prediction, the line that it is in, and its split if the file names it."""

    where: str
    value: float
    split: str | None


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Read predictions by clip id.

    Raises:
        UserError: no such file, not a CSV, a column is missing, an unknown split, a clip with two rows, or a prediction
            that is not a number.
    """
    if not path.is_file():
        what = "is a folder, expected a CSV file" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}. Give a CSV file of clip_id and prediction.")
    found: dict[str, Prediction] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv_lines(file, path)
        _, header = next(lines, (1, []))
        _require_columns(path, header)
        for number, cells in lines:
            if not cells:
                continue
            where = f"{path} line {number}"
            if len(cells) != len(header):
                raise UserError(f"{where} has {len(cells)} cells, but the header line has {len(header)}. Fix the row.")
            clip_id, prediction = _prediction(dict(zip(header, cells, strict=True)), where)
            if clip_id in found:
                first = found[clip_id].where.removeprefix(f"{path} ")
                raise UserError(f"{where}: clip {clip_id!r} is already in {first}. Keep one prediction of each clip.")
            found[clip_id] = prediction
    if not found:
        raise UserError(f"{path} has a header line but no rows.")
    return found


def _require_columns(path: Path, header: list[str]) -> None:
    for name in _COLUMNS:
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r} (columns: {', '.join(header[:30]) or 'none'})."
                f"{did_you_mean(name, header)} Its header line must name clip_id and prediction; split may follow."
            )
    for name in (*_COLUMNS, _SPLIT):
        if header.count(name) > 1:
            raise UserError(f"{path} has {header.count(name)} columns named {name!r}. Rename all but one.")


def _prediction(row: Mapping[str, str], where: str) -> tuple[str, Prediction]:
    clip_id = row["clip_id"].strip().replace("$_$", "_")  # MMSA's ids, `video$_$clip`
    cell, split = row["prediction"], row.get(_SPLIT)
    value = number_of(cell)
    if not math.isfinite(value):
        raise UserError(
            f"{where}: the prediction for {clip_id!r} is {cell!r}, expected a finite number.{decimal_comma(cell)}"
        )
    if split is not None and split.strip().lower() not in SPLIT_NAMES:
        raise UserError(f"{where}: split is {split!r}, expected one of {', '.join(SPLIT_NAMES)}.")
    return clip_id, Prediction(where, value, None if split is None else SPLIT_NAMES[split.strip().lower()])

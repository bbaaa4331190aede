"""Rows of a CSV file as clips, each checked where it stands."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.data.schema import LabelSpec
from vadv_dist.errors import UserError, did_you_mean

SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
    "test": "test",
}
DEFAULT_VIDEO_COLUMN = "video_id"
_COLUMN_OPTIONS = {
    "id_column": "--id-column",
    "split_column": "--split-column",
    "text_column": "--text-column",
    "label_column": "--label-column",
    "video_column": "--video-column",
    "fallback_text_column": "--fallback-text-column",
}


@dataclass(frozen=True)
class Columns:
    """Names of the columns that make a clip.

    `video_column` may be absent while it has its usual name: then a clip's video is its id up to the last `_`.
    """

    id_column: str = "id"
    split_column: str = "split"
    text_column: str = "text"
    label_column: str = "label"
    video_column: str = DEFAULT_VIDEO_COLUMN
    fallback_text_column: str | None = None


@dataclass(frozen=True)
class CsvClip:
    """One row: where it stands, and what it says."""

    where: str
    clip_id: str
    video_id: str
    split: str
    text: str
    label: float
    used_fallback: bool


def read_csv(path: Path, columns: Columns, label: LabelSpec) -> list[CsvClip]:
    """Read every row of a CSV file with a header line.

    Raises:
        UserError: not a CSV, a missing column, or a row that cannot become a clip, with its line.
    """
    clips: list[CsvClip] = []
    seen: dict[str, str] = {}
    for where, row in _rows(path, columns):
        clip = _parse(where, row, columns, label)
        if clip.clip_id in seen:
            raise UserError(
                f"{where}: id {clip.clip_id!r} stands in {seen[clip.clip_id].removeprefix(f'{path} ')} already. "
                "Ids name clips: make them differ, or leave one row out."
            )
        seen[clip.clip_id] = where.removeprefix(f"{path} ")
        clips.append(clip)
    if not clips:
        raise UserError(f"{path} has a header line, but not a single row.")
    return clips


def _rows(path: Path, columns: Columns) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row with where it stands (a quoted cell may span lines; the last one is named)."""
    if not path.is_file():
        what = "is a folder, expected a CSV file" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}. Give the CSV file with --csv.")
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _require_columns(path, header, columns)
            for cells in reader:
                if not cells:
                    continue
                where = f"{path} line {reader.line_num}"
                if len(cells) != len(header):
                    raise UserError(
                        f"{where} has {len(cells)} cells, the header line has {len(header)}. "
                        "Quote cells that hold commas or line breaks."
                    )
                yield where, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error.reason} at byte {error.start}).") from None
    except csv.Error as error:
        line = f" line {reader.line_num}" if reader is not None else ""
        raise UserError(f"{path}{line} is not CSV: {error}.") from None


def _require_columns(path: Path, header: list[str], columns: Columns) -> None:
    if not header:
        raise UserError(f"{path} is empty, expected a CSV file with a header line.")
    if "\0" in "".join(header):
        raise UserError(f"{path} is not a CSV file: its first line holds NUL bytes.")
    for attribute, option in _COLUMN_OPTIONS.items():
        name = getattr(columns, attribute)
        if name is None or (attribute == "video_column" and name == DEFAULT_VIDEO_COLUMN and name not in header):
            continue
        if name not in header:
            raise UserError(
                f"{path} has no column {name!r} (columns: {', '.join(header)}).{did_you_mean(name, header)} "
                f"Name the right one with {option}."
            )
        if header.count(name) > 1:
            raise UserError(f"{path} has {header.count(name)} columns named {name!r}. Rename all but one.")


def _parse(where: str, row: dict[str, str], columns: Columns, label: LabelSpec) -> CsvClip:
    clip_id = row[columns.id_column].strip()
    if not clip_id:
        raise UserError(f"{where}: {columns.id_column} is empty. Every clip needs an id of its own.")
    split = SPLIT_NAMES.get(row[columns.split_column].strip().lower())
    if split is None:
        raise UserError(
            f"{where}: {columns.split_column} is {row[columns.split_column]!r}, "
            f"expected one of {', '.join(SPLIT_NAMES)}."
        )
    text = row[columns.text_column].strip()
    used_fallback = not text and columns.fallback_text_column is not None
    if columns.fallback_text_column is not None and used_fallback:
        text = row[columns.fallback_text_column].strip()
    if not text:
        if used_fallback:
            what = f"{columns.text_column} and {columns.fallback_text_column} are both empty"
            advice = "Fill one in, or leave the row out."
        else:
            what = f"{columns.text_column} is empty"
            advice = (
                "Fill it in, leave the row out, or name another column to take words from with --fallback-text-column."
            )
        raise UserError(f"{where}: {what} (id {clip_id!r}). {advice}")
    video_id = row.get(columns.video_column, "").strip() or clip_id.rpartition("_")[0] or clip_id
    return CsvClip(where, clip_id, video_id, split, text, _parse_label(where, row, columns, label), used_fallback)


def _parse_label(where: str, row: dict[str, str], columns: Columns, label: LabelSpec) -> float:
    cell = row[columns.label_column]
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {columns.label_column} is {cell!r}, expected a number.")
    if not label.low <= value <= label.high:
        raise UserError(
            f"{where}: {columns.label_column} is {cell}, expected a number in [{label.low:g}, {label.high:g}]. "
            "Mend it, or give the right --label-range LOW HIGH."
        )
    return value

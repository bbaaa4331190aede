"""Read the rows of a CSV file as clips and validate each one."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.data.readers.ingestion import BadRowError
from vadv_dist.data.schema import LabelSpec
from vadv_dist.data.video_ids import video_of
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.formats.csv_lines import csv_lines, decimal_comma, number_of

SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
    "test": "test",
}
DEFAULT_VIDEO_COLUMN = "video_id"
_MAX_SHOWN = 30


@dataclass(frozen=True)
class TextColumns:
    """Names of the columns of a CSV of texts; several id columns are joined by `_` to one id."""

    id_column: tuple[str, ...] = ("id",)
    text_column: str = "text"
    fallback_text_column: str | None = None

    def options(self) -> dict[str, str]:
        """The command-line option of each column."""
        options = {self.text_column: "--text-column"} | dict.fromkeys(self.id_column, "--id-column")
        if self.fallback_text_column is not None:
            options[self.fallback_text_column] = "--fallback-text-column"
        return options

    def text_of(self, row: Mapping[str, str]) -> tuple[str, bool]:
        """A row's text, and whether it is from the fallback column."""
        text = row[self.text_column].strip()
        if text or self.fallback_text_column is None:
            return text, False
        return row[self.fallback_text_column].strip(), True


@dataclass(frozen=True)
class Columns(TextColumns):
    """Names of the columns that form a clip.

    `video_column` may be absent if it has its default name: a clip's video is then all id columns but the last or, with
    a single id column, the result of `video_ids.video_of`.
    """

    split_column: str = "split"
    label_column: str = "label"
    video_column: str = DEFAULT_VIDEO_COLUMN

    def options(self) -> dict[str, str]:
        """The command-line option of each column."""
        return {
            self.split_column: "--split-column",
            self.label_column: "--label-column",
            self.video_column: "--video-column",
        } | super().options()


@dataclass(frozen=True)
class TextRow:
    """The text of a clip, and its start and end in seconds and its label, if there are columns of these names."""

    where: str
    text: str
    used_fallback: bool
    start: float | None
    end: float | None
    label: float | None


@dataclass(frozen=True)
class CsvClip:
    """One row and its place in the file.

    `video_guessed` is true if the video is inferred from the id.
    """

    where: str
    clip_id: str
    video_id: str
    video_guessed: bool
    split: str
    text: str
    label: float
    used_fallback: bool


def read_csv(
    path: Path, columns: Columns, label: LabelSpec, on_bad_row: Callable[[BadRowError], None] | None = None
) -> Iterator[CsvClip]:
    """Read the rows of a CSV file with a header line one by one.

    Args:
        path: the file.
        columns: its columns.
        label: kind and range of the labels.
        on_bad_row: called for each row that cannot become a clip, which is then dropped; None refuses such rows.

    Raises:
        UserError: the file is not a CSV, a column is missing, or a row cannot become a clip (with its line).
    """
    line_of: dict[str, str] = {}
    optional = (columns.video_column,) if columns.video_column == DEFAULT_VIDEO_COLUMN else ()
    empty = True
    for where, header, cells in _rows(path, columns.options(), "--csv", optional):
        empty = False
        line = where.removeprefix(f"{path} ")
        try:
            clip = _parse(where, _named(where, header, cells), columns, label)
            if clip.clip_id in line_of:
                raise BadRowError(
                    "duplicate id",
                    f"{where}: id {clip.clip_id!r} is already in {line_of[clip.clip_id]}. "
                    "Clip ids must be unique: rename one, or remove a row.",
                )
        except BadRowError as bad:
            if on_bad_row is None:
                raise
            bad.place = line
            on_bad_row(bad)
            continue
        line_of[clip.clip_id] = line
        yield clip
    if empty:
        raise UserError(f"{path} has a header line but no rows.")


def read_texts(path: Path, columns: TextColumns) -> dict[str, TextRow]:
    """Read a CSV of texts by clip id.

    Raises:
        UserError: the file is not a CSV, a column is missing, a time is not a number, or an id is duplicated.
    """
    texts: dict[str, TextRow] = {}
    for where, header, cells in _rows(path, columns.options(), "--text-csv"):
        row = _named(where, header, cells)
        clip_id = _id(row, columns.id_column)
        if clip_id in texts:
            raise UserError(f"{where}: id {clip_id!r} is duplicated. Clip ids must be unique.")
        label = number_of(row.get("label", ""))  # NaN for words
        start, end = (_time(where, row, name) for name in ("start", "end"))
        texts[clip_id] = TextRow(where, *columns.text_of(row), start, end, label if math.isfinite(label) else None)
    return texts


def _rows(
    path: Path, options: Mapping[str, str], option: str, optional: Sequence[str] = ()
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the place, the header and the cells of each row."""
    if not path.is_file():
        what = "is a folder, expected a CSV file" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}. Give the CSV file with {option}.")
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv_lines(file, path)
        _, header = next(lines, (1, []))
        _require_columns(path, header, options, optional)
        for number, cells in lines:
            if cells:
                yield f"{path} line {number}", header, cells


def _named(where: str, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise BadRowError(
            "wrong number of cells",
            f"{where} has {len(cells)} cells, but the header line has {len(header)}. "
            "Quote cells that contain commas or line breaks.",
        )
    return dict(zip(header, cells, strict=True))


def _other_separator(header: Sequence[str]) -> str:
    """A hint for a header line that is separated by something other than commas."""
    if len(header) == 1:
        for sign, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in header[0]:
                return f"Its cells are separated by {name}; save it with commas."
    return ""


def _require_columns(path: Path, header: list[str], options: Mapping[str, str], optional: Sequence[str]) -> None:
    if not header:
        raise UserError(f"{path} is empty, expected a CSV file with a header line.")
    for name, option in options.items():
        if name in optional and name not in header:
            continue
        if name not in header:
            more = ", …" if len(header) > _MAX_SHOWN else ""
            shown = ", ".join(column[:_MAX_SHOWN] for column in header[:_MAX_SHOWN]) + more
            field = option.removeprefix("--").replace("-", "_")
            raise UserError(
                f"{path} has no column {name!r} (columns: {shown}).{did_you_mean(name, header)} "
                + (_other_separator(header) or f"Set the right one with {option} (in a workflow file, {field}).")
            )
        if header.count(name) > 1:
            raise UserError(f"{path} has {header.count(name)} columns named {name!r}. Rename all but one.")


def _parse(where: str, row: dict[str, str], columns: Columns, label: LabelSpec) -> CsvClip:
    clip_id = _id(row, columns.id_column)
    if not clip_id:
        names = " or ".join(columns.id_column)
        raise BadRowError("no id", f"{where}: {names} is empty. Every clip needs a unique id.")
    split = SPLIT_NAMES.get(row[columns.split_column].strip().lower())
    if split is None:
        raise BadRowError(
            "unknown split",
            f"{where}: {columns.split_column} is {row[columns.split_column]!r}, "
            f"expected one of {', '.join(SPLIT_NAMES)}.",
        )
    text, used_fallback = columns.text_of(row)
    if not text:
        if used_fallback:
            what = f"{columns.text_column} and {columns.fallback_text_column} are both empty"
            advice = "Fill one in, or remove the row."
        else:
            what = f"{columns.text_column} is empty"
            advice = "Fill it in, remove the row, or set another column for such rows with --fallback-text-column."
        raise BadRowError("no words", f"{where}: {what} (id {clip_id!r}). {advice}")
    cell = row[columns.label_column]
    value = number_of(cell)
    if not math.isfinite(value):
        raise BadRowError(
            "label is not a number",
            f"{where}: {columns.label_column} is {cell!r}, expected a number.{decimal_comma(cell)}",
        )
    if not label.holds(value):
        raise BadRowError(
            "label out of range",
            f"{where}: {columns.label_column} is {cell}, expected {label}. "
            "Fix it, or set the right --label-range LOW HIGH.",
        )
    named = row.get(columns.video_column, "").strip() or _id(row, columns.id_column[:-1])
    return CsvClip(where, clip_id, named or video_of(clip_id), not named, split, text, value, used_fallback)


def _id(row: dict[str, str], columns: Sequence[str]) -> str:
    """The cells of the id columns, joined; empty if one of them is."""
    parts = [row[column].strip() for column in columns]
    return "_".join(parts) if all(parts) else ""


def _time(where: str, row: dict[str, str], column: str) -> float | None:
    if column not in row:
        return None
    value = number_of(row[column])
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} is {row[column]!r}, expected seconds.")
    return value

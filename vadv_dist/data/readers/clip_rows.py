"""Read the rows of a table as clips and validate each one."""

import math
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from vadv_dist.data.readers.ingestion import BadRowError
from vadv_dist.data.readers.labels import LabelReader
from vadv_dist.data.readers.option_names import OptionName, in_clips, on_command_line
from vadv_dist.data.readers.splits import SplitRule
from vadv_dist.data.video_ids import video_of
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.formats.csv_lines import number_of
from vadv_dist.formats.table_rows import RowTable, TableFormat
from vadv_dist.formats.tabular import open_table

DEFAULT_VIDEO_COLUMN = "video_id"
# Usual names of columns of ids and of files. A table with one of the first has ids, so none are made.
ID_NAMES = ("id", "clip_id", "segment_id", "utterance_id", "clip", "segment", "name", "uid", "key")
FILE_NAMES = ("path", "file", "filename", "file_name", "video_path", "audio_path")
_MAX_SHOWN = 30


@dataclass(frozen=True)
class TextColumns:
    """Names of the columns of a table of texts; several id columns are joined by `_` to one id."""

    id_column: tuple[str, ...] = ("id",)
    text_column: str = "text"
    fallback_text_column: str | None = None

    def fields(self) -> dict[str, str]:
        """The option of each column."""
        fields = {self.text_column: "text_column"} | dict.fromkeys(self.id_column, "id_column")
        if self.fallback_text_column is not None:
            fields[self.fallback_text_column] = "fallback_text_column"
        return fields

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
    a single id column, the result of `video_ids.video_of`. The id column may be absent if it has its default name and
    the table has no other column of ids: ids are then made from a column of files, or from row numbers.
    """

    split_column: str = "split"
    label_column: str = "label"
    video_column: str = DEFAULT_VIDEO_COLUMN

    def fields(self) -> dict[str, str]:
        return {
            self.split_column: "split_column",
            self.label_column: "label_column",
            self.video_column: "video_column",
        } | super().fields()


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
class ClipRow:
    """One row and its place in the file.

    `video_guessed` is true if the video is inferred from the id; `others` has the cells of further columns.
    """

    where: str
    clip_id: str
    video_id: str
    video_guessed: bool
    split: str
    text: str
    label: float
    used_fallback: bool
    others: Mapping[str, str] | None = None


@dataclass
class ClipTable:
    """A table whose rows are clips.

    Args:
        table: the table.
        where: its name, for messages.
        columns: names of its columns.
        labels: reads labels.
        splits: where splits come from.
        others: further columns to read, which must exist.
        optional: further columns that may be absent.
        words_needed: whether a clip without words is refused.
        default_id: the name of the id column if nobody set one.
        option: how messages name options.
    Raises:
        UserError: a column is missing.
    """

    table: RowTable
    where: object
    columns: Columns
    labels: LabelReader
    splits: SplitRule
    others: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    words_needed: bool = True
    default_id: str = "id"
    option: OptionName = on_command_line
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        header, columns = self.table.header, self.columns
        self._file_column = next((name for known in FILE_NAMES for name in header if name.lower() == known), None)
        self.makes_ids = self._lacks_ids()
        self._has_split = self.splits.shares is None and columns.split_column in header
        self._has_video = columns.video_column in header
        self._has_text = columns.text_column in header
        fields = columns.fields() | {name: f"{name}_column" for name in self.others}
        absent = {
            columns.video_column: columns.video_column == DEFAULT_VIDEO_COLUMN,
            columns.split_column: not self.splits.needs_column,
            columns.text_column: not self.words_needed,
            **dict.fromkeys(columns.id_column, self.makes_ids),
        }
        wanted = {name: which for name, which in fields.items() if name in header or not absent.get(name, False)}
        _require_columns(self.where, self.table, wanted, self.option)
        self._read = (*wanted, *(name for name in self.optional if name in header))
        if self.makes_ids and self._file_column and self._file_column not in self._read:
            self._read = (*self._read, self._file_column)
        self.said += self._remarks()

    def rows(self, on_bad_row: Callable[[BadRowError], None] | None = None) -> Iterator[ClipRow]:
        """Read the rows one by one.

        Args:
            on_bad_row: called for each row that cannot become a clip, which is then dropped; None refuses such rows.

        Raises:
            UserError: the file is damaged, or a row cannot become a clip (with its place).
        """
        self.labels.commas = self.labels.percents = 0
        place_of: dict[str, str] = {}
        made: Counter[str] = Counter()
        number = 0
        for number, row in enumerate(self.table.rows(self._read), 1):
            where = f"{self.where} {row.place}"
            try:
                if row.fault:
                    raise BadRowError(row.reason, f"{where} {row.fault}")
                clip = self._clip(where, number, row.cells, made)
                if clip.clip_id in place_of:
                    raise BadRowError(
                        "duplicate id",
                        f"{where}: id {clip.clip_id!r} is already in {place_of[clip.clip_id]}. "
                        "Clip ids must be unique: rename one, or remove a row.",
                    )
            except BadRowError as bad:
                if on_bad_row is None:
                    raise
                bad.place = row.place
                on_bad_row(bad)
                continue
            place_of[clip.clip_id] = row.place
            yield clip
        if not number:
            raise UserError(f"{self.where} has {self.table.head} but no rows.")

    @property
    def used_columns(self) -> dict[str, str | list[str]]:
        """The columns that clips are made of, by option."""
        ids = list(self.columns.id_column)
        used: dict[str, str | list[str]] = {
            option: name for option, name in asdict(self.columns).items() if name in self._read
        }
        if not self._has_split:
            used.pop("split_column", None)
        if not self.makes_ids:
            used["id_column"] = ids[0] if len(ids) == 1 else ids
        return used

    def _lacks_ids(self) -> bool:
        header = {name.strip().lower() for name in self.table.header}
        return self.columns.id_column == (self.default_id,) and not header & set(ID_NAMES)

    def _remarks(self) -> list[str]:
        read_as = f"read as {self.table.read_as}"
        said = [read_as]
        if self.makes_ids:
            source = f"the column {self._file_column}" if self._file_column else "row numbers"
            said.append(
                f"there is no column of ids: ids were made from {source} ({self.option('id_column')} names one)"
            )
            if not (self._has_video or self._file_column):
                said.append("there is no column of videos: every clip is a separate video")
        if self.splits.shares is not None and self.columns.split_column in self.table.header:
            said.append(
                f"the column {self.columns.split_column} was not read, because {self.option('split')} deals out splits"
            )
        elif not self._has_split and self.splits.shares is None:
            said.append("there is no column of splits: all clips were taken as train")
        return said

    def _clip(self, where: str, number: int, row: Mapping[str, str], made: Counter[str]) -> ClipRow:
        columns, option = self.columns, self.option
        clip_id, video, guessed = self._ids(number, row, made)
        if not clip_id:
            names = " or ".join(columns.id_column)
            raise BadRowError("no id", f"{where}: {names} is empty. Every clip needs a unique id.")
        split = "train"
        if self._has_split:
            cell = row[columns.split_column]
            split = self.splits.names.get(cell.strip().lower(), "")
            if not split:
                raise BadRowError(
                    "unknown split",
                    f"{where}: {columns.split_column} is {cell!r}, expected one of {', '.join(self.splits.names)}. "
                    f"Fix it, or say what it means with {option('split_map')} (such as dev=valid).",
                )
        text, used_fallback = columns.text_of(row) if self._has_text else ("", False)
        if not text and self.words_needed:
            raise BadRowError("no words", self._no_words(where, clip_id, used_fallback))
        label = self.labels.read(where, columns.label_column, row[columns.label_column])
        others = {name: row[name].strip() for name in (*self.others, *self.optional) if name in row}
        return ClipRow(where, clip_id, video, guessed, split, text, label, used_fallback, others or None)

    def _no_words(self, where: str, clip_id: str, used_fallback: bool) -> str:
        columns = self.columns
        if used_fallback:
            what = f"{columns.text_column} and {columns.fallback_text_column} are both empty"
            advice = "Fill one in, or remove the row."
        else:
            what = f"{columns.text_column} is empty"
            advice = (
                "Fill it in, remove the row, or set another column for such rows with "
                f"{self.option('fallback_text_column')}."
            )
            if self.option is in_clips:
                advice += f" {in_clips('transcribe')} names a speech recognition model that finds the words."
        return f"{where}: {what} (id {clip_id!r}). {advice}"

    def _ids(self, number: int, row: Mapping[str, str], made: Counter[str]) -> tuple[str, str, bool]:
        """The id and the video of a row, and whether the video is guessed."""
        columns = self.columns
        named = row[columns.video_column].strip() if self._has_video else ""
        if not self.makes_ids:
            clip_id = _id(row, columns.id_column)
            named = named or _id(row, columns.id_column[:-1])
            return clip_id, named or video_of(clip_id), not named
        if self._file_column is not None:
            base = _name_of_file(row[self._file_column])
            made[base] += 1
            clip_id = base if made[base] == 1 or not base else f"{base}_{made[base]}"
            return clip_id, named or video_of(base), not named
        return (f"{named}_{number}", named, False) if named else (f"row_{number}", f"row_{number}", False)


def read_texts(path: Path, columns: TextColumns) -> dict[str, TextRow]:
    """Read a table of texts by clip id.

    Raises:
        UserError: the file is not a table, a column is missing, a time is not a number, or an id is duplicated.
    """
    table = open_table(path, TableFormat(), option="--text-csv")
    fields = columns.fields()
    _require_columns(path, table, fields, on_command_line)
    more = [name for name in ("label", "start", "end") if name in table.header and name not in fields]
    texts: dict[str, TextRow] = {}
    for row in table.rows((*fields, *more)):
        where, cells = f"{path} {row.place}", row.cells
        if row.fault:
            raise UserError(f"{where} {row.fault}")
        clip_id = _id(cells, columns.id_column)
        if clip_id in texts:
            raise UserError(f"{where}: id {clip_id!r} is duplicated. Clip ids must be unique.")
        label = number_of(cells.get("label", ""))  # NaN for words
        start, end = (_time(where, cells, name) for name in ("start", "end"))
        texts[clip_id] = TextRow(where, *columns.text_of(cells), start, end, label if math.isfinite(label) else None)
    return texts


def _require_columns(where: object, table: RowTable, fields: Mapping[str, str], option: OptionName) -> None:
    for name, which in fields.items():
        count = table.header.count(name)
        if count > 1:
            raise UserError(f"{where} has {count} columns named {name!r}. Rename all but one.")
        if count:
            continue
        more = ", …" if len(table.header) > _MAX_SHOWN else ""
        shown = ", ".join(column[:_MAX_SHOWN] for column in table.header[:_MAX_SHOWN]) + more
        advice = f"Set the right one with {option(which)}"
        if option(which).startswith("--"):
            advice += f" (in a workflow file, {which})"
        if which == "split_column":
            advice += f", or deal out splits with {option('split')} 80/10/10"
        if len(table.header) == 1:
            advice = f"Its header line is one cell: name the sign between cells with {option('delimiter')}."
        usual = [column for column in table.header if which == "id_column" and column.strip().lower() in ID_NAMES]
        near = f" Did you mean {usual[0]!r}?" if usual else did_you_mean(name, table.header)
        raise UserError(f"{where} has no column {name!r} (columns: {shown}).{near} {advice.rstrip('.')}.")


def _id(row: Mapping[str, str], columns: Sequence[str]) -> str:
    """The cells of the id columns, joined; empty if one of them is."""
    parts = [row[column].strip() for column in columns]
    return "_".join(parts) if all(parts) else ""


def _name_of_file(path: str) -> str:
    """An id from a file's path: `Raw_q_1` for `Raw/q/1.mp4`."""
    text = path.strip().replace("\\", "/").partition("://")
    parts = PurePosixPath(posixpath.normpath(text[2] or text[0])).with_suffix("").parts if path.strip() else ()
    return "_".join(part for part in parts if part not in ("/", "..", "."))


def _time(where: str, row: Mapping[str, str], column: str) -> float | None:
    if column not in row:
        return None
    value = number_of(row[column])
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} is {row[column]!r}, expected seconds.")
    return value

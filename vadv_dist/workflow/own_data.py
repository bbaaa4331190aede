"""What a person's data are, as far as they explain themselves: a table, raw clips or a data set."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vadv_dist.config.extract_sections import ClipsConfig
from vadv_dist.data.classes import listed
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.clip_rows import ID_NAMES, ClipTable, Columns
from vadv_dist.data.readers.ingestion import BadRowError
from vadv_dist.data.readers.labels import LabelReader, label_spec
from vadv_dist.data.readers.splits import split_rule
from vadv_dist.data.schema import LabelSpec
from vadv_dist.errors import UserError, similar_file
from vadv_dist.features.listing import CSV_COLUMNS, MMSA_COLUMNS, list_clips
from vadv_dist.formats.tabular import SAVED_DATASET, TABLE_KINDS, open_table
from vadv_dist.storage import Location, local_copy, location
from vadv_dist.workflow.own_columns import USUAL, example_columns, propose_columns
from vadv_dist.workflow.own_labels import Labels, Splits

_MAX_BAD_SHARE = 0.1


@dataclass(frozen=True)
class Found:
    """Data of a person, as far as it explains itself.

    Attributes:
        kind: `table`, `list`, `mmsa` or `ready`.
        place: its location as given.
        table: the table of rows; None for a data set.
        features: what a teacher could see.
        header: columns of the table.
        columns: columns by field: id (several joined with `+`), text, label, split, video, path; some may be absent.
        labels, splits: what is known about them; of a data set only the splits.
        transcribe: speech recognition model for clips without words.
    """

    kind: str
    place: str
    table: Location | None = None
    features: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    splits: Splits = field(default_factory=Splits)
    transcribe: str | None = None

    def cells(self, name: str) -> list[str]:
        """The cells of a field's column; none if there is no such column."""
        if name not in self.columns or self.table is None:
            return []
        column = self.columns[name]
        with local_copy(self.table) as path:
            rows = open_table(path, where=self.table).rows([column])
            return [row.cells[column] for row in rows if not row.fault]

    @property
    def label(self) -> LabelSpec:
        """Kind and range of the labels."""
        return label_spec(self.labels.label_range or (-3.0, 3.0), classes=self.labels.classes)


def look(place: str) -> Found:
    """Find out what somebody's data are.

    Raises:
        UserError: they are nothing that a workflow can start from.
    """
    at = location(place)
    if (at / "dataset.json").is_file():
        manifest = Dataset.open(place).manifest
        if not manifest.has_words:
            raise UserError(f"{place} has no words, but vadv init writes workflows for students that read text.")
        splits = Splits(has_test=bool(manifest.rows("test")))
        return Found("ready", place, None, tuple(manifest.features), splits=splits)
    if (at / "label.csv").is_file() and (at / "Raw").is_dir():
        header, _ = _rows(at / "label.csv", MMSA_COLUMNS)
        columns = {"id": "video_id+clip_id", "text": "text", "label": "label", "split": "mode", "video": "video_id"}
        return Found("mmsa", place, at / "label.csv", ("visual",), header, columns)
    if at.is_file() or any((at / name).is_file() for name in SAVED_DATASET):
        header, rows = _rows(at)
        columns = propose_columns(header, rows)
        is_list = set(CSV_COLUMNS) <= set(header) or "path" in columns
        return Found("list" if is_list else "table", place, at, ("visual",) if is_list else (), header, columns)
    near = ""
    if at.exists() or at.is_dir():
        what = "is none of these"
    else:
        what, near = "does not exist", similar_file(Path(place))
    raise UserError(
        f"{place} {what}, expected a table ({TABLE_KINDS}) of texts or of clips ({', '.join(CSV_COLUMNS)}), a "
        "folder with label.csv and Raw/, or a data set (a folder with dataset.json). For other formats see "
        f"docs/workflow.md.{near}"
    )


def with_columns(found: Found, text: str) -> Found:
    """A table with chosen columns.

    Raises:
        UserError: a column is missing.
    """
    example = example_of(found)
    columns = {}
    for part in filter(str.strip, next(csv.reader([text], skipinitialspace=True), [])):
        name, sign, column = part.partition("=")
        if not (name.strip() and sign and column.strip()):
            raise UserError(f"--columns has {part!r}, expected FIELD=COLUMN pairs, such as {example}.")
        columns[name.strip()] = column if column in found.header else column.strip()
    for name in _needed(found):
        if name not in columns:
            advice = " Clips without words need --transcribe." if name == "text" and found.kind == "list" else ""
            raise UserError(
                f"--columns {text or '(nothing)'} names no column for {name} (columns: {', '.join(found.header)}), "
                f"expected all that are needed, such as {example}.{advice}"
            )
    for name, of_table in columns.items():
        if name not in USUAL:
            raise UserError(f"--columns has the unknown field {name!r}, expected one of {', '.join(USUAL)}.")
        for column in of_table.split("+") if name == "id" else [of_table]:
            if column not in found.header:
                raise UserError(f"{found.place} has no column {column!r} (columns: {', '.join(found.header)}).")
    return replace(found, columns=columns)


def is_clear(found: Found) -> bool:
    """Whether all columns that are needed were recognised."""
    return set(_needed(found)) <= set(found.columns)


def example_of(found: Found) -> str:
    """Pairs of field and column that could be given for a table, made of its own columns."""
    return example_columns(found.header, found.columns, _needed(found))


def _needed(found: Found) -> list[str]:
    """The fields that must have a column; ids are made if no column seems to have them."""
    has_ids = {name.strip().lower() for name in found.header} & set(ID_NAMES)
    return [
        *(["id"] if has_ids else []),
        *([] if found.transcribe else ["text"]),
        "label",
        *(["path"] if found.kind == "list" else []),
    ]


def check_rows(found: Found) -> str:
    """Read all rows as they will be read, and return a remark on those that will be dropped, if there are any.

    Raises:
        UserError: many rows are bad, none is good, or a class has no clips in train.
    """
    labels, splits = found.labels, found.splits
    rule = split_rule(splits.split_map, splits.split, splits.valid_fraction, 1)
    bad = list[BadRowError]()
    if found.kind == "table":
        columns = {f"{name}_column": column for name, column in found.columns.items() if name not in ("id", "path")}
        ids = tuple(found.columns["id"].split("+")) if "id" in found.columns else Columns.id_column
        assert found.table is not None
        with local_copy(found.table) as path:
            reader = LabelReader(found.label, labels.label_map)
            table = ClipTable(open_table(path, where=found.table), found.place, Columns(ids, **columns), reader, rule)
            clips = rule.apply(list(table.rows(bad.append)), found.label, found.place)
        good = len(clips)
        of_split = Counter((clip.split, clip.label) for clip in clips)
    else:
        listed_clips = list_clips(ClipsConfig(**clips_settings(found))).clips
        of_split = Counter((clip.split, clip.label) for clip in listed_clips)
        good = len(listed_clips)
    if bad and len(bad) > _MAX_BAD_SHARE * (good + len(bad)):
        raise UserError(f"{len(bad):,} of {good + len(bad):,} rows cannot be used. The first: {bad[0]}")
    _require_train(found, of_split)
    return f"{len(bad):,} of {good + len(bad):,} rows will be dropped. The first: {bad[0]}" if bad else ""


def _require_train(found: Found, clips: Mapping[tuple[str, float], int]) -> None:
    """Refuse what a run would refuse after the data set is made."""
    in_train = {label for split, label in clips if split == "train"}
    lost = sorted({label for split, label in clips} - in_train)
    if not in_train:
        raise UserError(f"{found.place} has no rows for train. Deal out splits with --split 80/10/10.")
    if found.labels.classes and lost:
        names = listed([found.labels.classes[int(label)] for label in lost])
        raise UserError(
            f"{found.place} has no train clips of {names}, so nothing can be learned about them. Add clips, or deal "
            "out splits with --split 80/10/10."
        )


def table_settings(found: Found) -> dict[str, Any]:
    """Columns, labels and splits as fields of `TableFields`."""
    labels, splits = found.labels, found.splits
    settings: dict[str, Any] = {
        f"{name}_column": tuple(column.split("+")) if name == "id" else column for name, column in found.columns.items()
    }
    settings |= {
        "label_range": labels.label_range,
        "label_map": dict(labels.label_map),
        "classes": labels.classes,
        "split_map": dict(splits.split_map),
        "split": splits.split,
        "valid_fraction": splits.valid_fraction,
    }
    return {name: value for name, value in settings.items() if value}


def clips_settings(found: Found) -> dict[str, Any]:
    """The section `clips` of an extraction."""
    settings = table_settings(found)
    if found.kind == "mmsa":
        settings = {name: value for name, value in settings.items() if not name.endswith("_column")}
        return {"mmsa": found.place, **settings}
    transcribe = {} if found.transcribe is None else {"transcribe": found.transcribe}
    return {"csv": found.place, **settings, **transcribe}


def _rows(file: Location, needed: Sequence[str] = ()) -> tuple[tuple[str, ...], list[list[str]]]:
    with local_copy(file) as path:
        table = open_table(path, where=file)
        header = table.header
        rows = [[row.cells[name] for name in header] for row in table.rows(header) if not row.fault]
    if not rows:
        raise UserError(f"{file} has no rows, expected a header line and a row per clip.")
    if len(header) == 1:
        raise UserError(f"{file} has one column, {header[0][:60]!r}, expected several.")
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(f"{file} has no column {missing[0]!r} (columns: {', '.join(header)}).")
    return header, rows

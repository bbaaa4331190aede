"""What a person's data are, as far as they explain themselves: a table, raw clips or a data set."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from vadv_dist.config.extract_sections import ClipsConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.readers.clip_rows import ClipTable, Columns
from vadv_dist.data.readers.ingestion import BadRowError
from vadv_dist.data.readers.labels import LabelReader, label_number, label_spec
from vadv_dist.data.readers.splits import SPLIT_NAMES, split_rule
from vadv_dist.errors import UserError
from vadv_dist.features.listing import CSV_COLUMNS, MMSA_COLUMNS, list_clips
from vadv_dist.formats.tabular import SAVED_DATASET, TABLE_KINDS, open_table
from vadv_dist.storage import Location, local_copy, location

# Usual names of columns, the likeliest first.
_USUAL = {
    "id": ("id", "clip_id", "segment_id", "utterance_id", "clip", "segment", "name", "file"),
    "text": ("text", "transcript", "sentence", "utterance", "words", "content"),
    "label": ("label", "labels", "sentiment", "score", "rating", "target"),
    "split": ("split", "mode", "set", "subset", "partition", "fold"),
    "video": ("video_id", "video", "video_name", "dialogue_id", "speaker"),
}
_MAX_BAD_SHARE = 0.1


@dataclass(frozen=True)
class Found:
    """Data of a person, as far as it explains itself.

    Attributes:
        kind: `table`, `list`, `mmsa` or `ready`.
        place: its location as given.
        features: what a teacher could see.
        header: columns of a CSV file.
        columns: columns of a table by field: id (several joined with `+`), text, label, split, video.
        has_valid: whether there is a validation split.
        label_range: range of labels that covers all.
    """

    kind: str
    place: str
    features: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    columns: Mapping[str, str] | None = None
    has_valid: bool = True
    label_range: tuple[float, float] | None = None


def look(place: str) -> Found:
    """Find out what somebody's data are.

    Raises:
        UserError: they are nothing that a workflow can start from.
    """
    at = location(place)
    if (at / "dataset.json").is_file():
        manifest = Dataset.open(place).manifest
        if manifest.label.is_class:
            raise UserError(f"{place} has classes, but vadv init writes workflows for labels that are numbers.")
        return Found("ready", place, tuple(manifest.features), has_valid="valid" in manifest.splits)
    if (at / "label.csv").is_file() and (at / "Raw").is_dir():
        header, rows = _rows(at / "label.csv", MMSA_COLUMNS)
        return Found(
            "mmsa",
            place,
            ("visual",),
            header,
            label_range=_range(_column(header, rows, "label"), f"{at / 'label.csv'}, label"),
        )
    if at.is_file() or any((at / name).is_file() for name in SAVED_DATASET):
        header, rows = _rows(at)
        if set(CSV_COLUMNS) <= set(header):
            return Found(
                "list", place, ("visual",), header, label_range=_range(_column(header, rows, "label"), f"{at}, label")
            )
        return Found("table", place, (), header, propose_columns(header, rows))
    what = "does not exist" if not (at.exists() or at.is_dir()) else "is none of these"
    raise UserError(
        f"{place} {what}, expected a table ({TABLE_KINDS}) of texts or of clips ({', '.join(CSV_COLUMNS)}), a "
        "folder with label.csv and Raw/, or a data set (a folder with dataset.json). For other formats see "
        "docs/workflow.md."
    )


def propose_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """The columns of a table by field, by their usual names and what is in them; a field may be missing."""
    cells = {name: _column(header, rows, name) for name in header}
    fits: dict[str, Callable[[list[str]], bool]] = {
        "label": lambda column: all(math.isfinite(label_number(cell)) for cell in column if cell.strip()),
        "split": lambda column: {cell.strip().lower() for cell in column} <= set(SPLIT_NAMES),
    }
    found = {}
    for field, names in _USUAL.items():
        usual = [name for known in names for name in header if name.strip().lower() == known]
        fitting = [name for name in usual if fits.get(field, bool)(cells[name])]
        if fitting:
            found[field] = fitting[0]
    if "id" in found and "video" in found and len(set(cells[found["id"]])) < len(cells[found["id"]]):
        found["id"] = f"{found['video']}+{found['id']}"  # numbered within each video
    return found


def with_columns(found: Found, text: str) -> Found:
    """A table with chosen columns, the range of its labels, and whether it has a validation split.

    Raises:
        UserError: a column is missing, or the labels are not numbers.
    """
    columns = dict(part.split("=", 1) for part in (p.strip() for p in text.split(",")) if "=" in part)
    for field in ("id", "text", "label", "split"):
        advice = " Add a column with train, valid or test for every row." if field == "split" else ""
        if field not in columns:
            raise UserError(
                f"--columns {text or '(nothing)'} names no column for {field} (columns: {', '.join(found.header)}), "
                f"expected id=…,text=…,label=…,split=…[,video=…].{advice}"
            )
    for field, names in columns.items():
        if field not in _USUAL:
            raise UserError(f"--columns has the unknown field {field!r}, expected one of {', '.join(_USUAL)}.")
        for name in names.split("+") if field == "id" else [names]:
            if name not in found.header:
                raise UserError(f"{found.place} has no column {name!r} (columns: {', '.join(found.header)}).")
    _, rows = _rows(location(found.place))
    labels, splits = (_column(found.header, rows, columns[field]) for field in ("label", "split"))
    return replace(
        found,
        columns=columns,
        has_valid=any(SPLIT_NAMES.get(split.strip().lower()) == "valid" for split in splits),
        label_range=_range(labels, f"{found.place}, column {columns['label']}"),
    )


def check_rows(found: Found) -> str:
    """Read all rows as they will be read, and return a remark on those that will be dropped, if there are any.

    Raises:
        UserError: many rows are bad, or none is good.
    """
    assert found.label_range is not None
    if found.kind != "table":
        listed, folder = (None, found.place) if found.kind == "mmsa" else (found.place, None)
        list_clips(ClipsConfig(csv=listed, mmsa=folder, label_range=found.label_range))
        return ""
    columns, bad = found.columns or {}, list[BadRowError]()
    named = {f"{field}_column": columns[field] for field in ("text", "label", "split")}
    named |= {"video_column": columns["video"]} if "video" in columns else {}
    with local_copy(location(found.place)) as path:
        labels, rule = LabelReader(label_spec(found.label_range)), split_rule(None, None, None, 1)
        table = open_table(path, where=found.place)
        clips = ClipTable(table, found.place, Columns(tuple(columns["id"].split("+")), **named), labels, rule)
        good = sum(1 for _ in clips.rows(bad.append))
    if bad and len(bad) > _MAX_BAD_SHARE * (good + len(bad)):
        raise UserError(f"{len(bad):,} of {good + len(bad):,} rows cannot be used. The first: {bad[0]}")
    return f"{len(bad):,} of {good + len(bad):,} rows will be dropped. The first: {bad[0]}" if bad else ""


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


def _column(header: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> list[str]:
    number = header.index(name)
    return [row[number] for row in rows]


def _range(cells: Sequence[str], where: str) -> tuple[float, float]:
    """A range of whole numbers that covers all labels, symmetric if some are negative."""
    labels = [value for cell in cells if math.isfinite(value := label_number(cell))]
    if not labels:
        raise UserError(f"{where} does not contain numbers ({cells[0][:40]!r} …), expected labels that are numbers.")
    low, high = math.floor(min(labels)), math.ceil(max(labels))
    if low < 0:
        return float(-max(-low, high)), float(max(-low, high))
    return float(low), float(max(high, low + 1))

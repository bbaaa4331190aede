"""List the clips of an extraction from a CSV, or from a folder in MMSA's raw layout."""

import io
import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vadv_dist.config.extract_sections import ClipsConfig
from vadv_dist.data.readers.csv_rows import SPLIT_NAMES
from vadv_dist.data.video_ids import video_of
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.formats.csv_lines import csv_lines, decimal_comma, number_of
from vadv_dist.storage import Location, join, location, open_binary

CSV_COLUMNS = ("clip_id", "video_id", "split", "label", "text", "path")
TIME_COLUMNS = ("start_s", "end_s")
# MMSA's label.csv; `mode` is the split. label_T, label_A, label_V and annotation are ignored.
MMSA_COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
WRONG_TIMES = "wrong times"


@dataclass(frozen=True)
class ListedClip:
    """One clip to read.

    Attributes:
        path: path of its file, relative to the list's root unless absolute or a URI.
        start_s, end_s: the part of the file that is the clip, in seconds; None is the file's start or end.
        names: possible names of another program's output for the clip, the most specific first.
        fault: why the clip cannot be read, if the list already shows it (invalid times).
    """

    clip_id: str
    video_id: str
    split: str
    label: float
    text: str
    path: str
    start_s: float | None = None
    end_s: float | None = None
    names: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class ClipList:
    """All clips of an extraction, in the order of the list.

    Attributes:
        file: the CSV.
        root: base folder of the clips' paths.
        source: source name of all clips.
    """

    file: Location
    root: Location
    source: str
    clips: tuple[ListedClip, ...]

    def location(self, clip: ListedClip) -> str:
        """Location of a clip's file."""
        return str(join(self.root, clip.path))


def list_clips(config: ClipsConfig) -> ClipList:
    """Read the configured list.

    Raises:
        UserError: no list is configured or it does not exist, a column is missing, or a row cannot become a clip.
    """
    columns: tuple[str, ...]
    if config.csv is not None:
        file = location(config.csv)
        root = file.parent if config.root is None else location(config.root)
        name, columns = Path(file.name).stem, CSV_COLUMNS
    elif config.mmsa is not None:
        folder = location(config.mmsa)
        file, root, name, columns = folder / "label.csv", folder, folder.name, MMSA_COLUMNS
        if not (folder / "Raw").is_dir():
            raise UserError(
                f"{folder} has no folder Raw, so it is not MMSA's raw layout (label.csv next to "
                "Raw/<video_id>/<clip_id>.mp4). Use the folder that contains both, or a list with clips.csv."
            )
    else:
        raise UserError(
            "No clips are configured. Set clips.csv to a CSV with the columns "
            f"{', '.join(CSV_COLUMNS)}[, {', '.join(TIME_COLUMNS)}], or clips.mmsa to a folder in MMSA's raw layout."
        )
    clips: list[ListedClip] = []
    line_of: dict[str, int] = {}
    for line, row in _rows(file, columns):
        where = f"{file} line {line}"
        clip = _parse(where, row if config.csv is not None else _from_mmsa(row), config.label_range)
        if clip.clip_id in line_of:
            raise UserError(
                f"{where}: clip {clip.clip_id!r} is already in line {line_of[clip.clip_id]}. Clip ids must be unique: "
                "rename one, or remove a row."
            )
        line_of[clip.clip_id] = line
        clips.append(clip)
    if not clips:
        raise UserError(f"{file} has a header line but no rows.")
    _require_parts(file, clips)
    names = own_names([(clip.clip_id, clip.path) for clip in clips])
    named = tuple(replace(clip, names=own) for clip, own in zip(clips, names, strict=True))
    return ClipList(file, root, config.source or name, named)


def _require_parts(file: Location, clips: list[ListedClip]) -> None:
    """Refuse a list with different texts for one piece of video, for example because its times are in other columns."""
    found: dict[tuple[str, float | None, float | None], ListedClip] = {}
    for clip in clips:
        if clip.fault is not None:
            continue
        other = found.setdefault((posixpath.normpath(clip.path), clip.start_s, clip.end_s), clip)
        if other.text != clip.text:
            end = "the end" if clip.end_s is None else f"{clip.end_s:g} s"
            piece = "the whole" if clip.start_s is None and clip.end_s is None else f"{clip.start_s or 0:g} s to {end}"
            raise UserError(
                f"{file}: clips {other.clip_id!r} and {clip.clip_id!r} have different texts, but both are {piece} of "
                f"{clip.path}. Put the time range of each into the columns {' and '.join(TIME_COLUMNS)}."
            )


def _rows(file: Location, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with its line (the last one if a quoted cell spans several)."""
    if not file.is_file():
        what = "is a folder, expected a CSV file" if file.is_dir() else "does not exist"
        raise UserError(f"{file} {what}. Set clips.csv to the list of clips, or clips.mmsa to its folder.")
    with io.TextIOWrapper(open_binary(file), encoding="utf-8-sig", newline="") as text:
        lines = csv_lines(text, file)
        _, header = next(lines, (1, []))
        for name in columns:
            if header.count(name) != 1:
                what = f"has {header.count(name) or 'no'} columns named {name!r} ({', '.join(header) or 'none'})"
                raise UserError(
                    f"{file} {what}, expected {', '.join(columns)}.{did_you_mean(name, header)} "
                    "Rename the columns of its header line."
                )
        for line, cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{file} line {line} has {len(cells)} cells, but the header line has {len(header)}. "
                    "Quote cells that contain commas or line breaks."
                )
            yield line, dict(zip(header, cells, strict=True))


def _from_mmsa(row: Mapping[str, str]) -> dict[str, str]:
    video, clip = row["video_id"].strip(), row["clip_id"].strip()
    return {
        "clip_id": f"{video}_{clip}" if clip else "",
        "video_id": video,
        "split": row["mode"],
        "label": row["label"],
        "text": row["text"],
        "path": f"Raw/{video}/{clip}.mp4",
    }


def _parse(where: str, row: Mapping[str, str], label_range: tuple[float, float]) -> ListedClip:
    clip_id, text, path = row["clip_id"].strip(), row["text"].strip(), row["path"].strip()
    for name, value in (("clip_id", clip_id), ("text", text), ("path", path)):
        if not value:
            named = f" (clip {clip_id!r})" if clip_id else ""
            raise UserError(f"{where}: {name} is empty{named}. Fill it in, or remove the row.")
    try:
        join(Path(), path)
    except UserError as error:
        raise UserError(f"{where}: the path is not a readable location: {error}") from None
    split = SPLIT_NAMES.get(row["split"].strip().lower())
    if split is None:
        raise UserError(f"{where}: the split is {row['split']!r}, expected one of {', '.join(SPLIT_NAMES)}.")
    low, high = label_range
    label = _number(row["label"])
    if label is None or not low <= label <= high:
        raise UserError(
            f"{where}: label is {row['label']!r}, expected a number in [{low:g}, {high:g}]."
            f"{decimal_comma(row['label'])} Fix it, or set clips.label_range."
        )
    times: list[float | None] = []
    fault = None
    for name in TIME_COLUMNS:
        cell = row.get(name, "").strip()
        seconds = _number(cell) if cell else None
        if cell and (seconds is None or seconds < 0):
            fault = f"{WRONG_TIMES}: {name} is {cell!r}, expected seconds from 0"
            seconds = None
        times.append(seconds)
    start, end = times
    if fault is None and end is not None and end <= (start or 0.0):
        fault = f"{WRONG_TIMES}: it ends at {end:g} s but starts at {start or 0.0:g} s"
    video = row["video_id"].strip() or video_of(clip_id)
    return ListedClip(clip_id, video, split, label, text, path, start, end, fault=fault)


def _number(cell: str) -> float | None:
    value = number_of(cell)
    return value if math.isfinite(value) else None


def own_names(clips: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """For each clip (id, path), return its id and then the tails of its path without suffix, the longest first.

    A name that also fits another file is left out: with `p/1.mp4` and `q/1.mp4`, `1` is ambiguous, but `p/1` and `q/1`
    are not.
    """
    tails = [path_tails(path) for _, path in clips]
    owners: dict[str, set[str]] = {}
    for (clip_id, path), names in zip(clips, tails, strict=True):
        file = posixpath.normpath(path)
        for name in (clip_id, *names):
            owners.setdefault(name, set()).add(file)
    return [
        tuple(dict.fromkeys(name for name in (clip_id, *names) if len(owners[name]) == 1))
        for (clip_id, _), names in zip(clips, tails, strict=True)
    ]


def path_tails(path: str) -> tuple[str, ...]:
    """Return `Raw/q/1`, `q/1` and `1` for `Raw/q/1.mp4`."""
    parts = PurePosixPath(posixpath.normpath(path.partition("://")[2] or path)).with_suffix("").parts
    parts = tuple(part for part in parts if part not in ("/", "..", "."))
    return tuple("/".join(parts[start:]) for start in range(len(parts)))

"""List the clips of an extraction from a table, or from a folder in MMSA's raw layout."""

import hashlib
import math
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vadv_dist.config.extract_sections import ClipsConfig
from vadv_dist.data.readers.clip_rows import ClipRow, ClipTable, Columns
from vadv_dist.data.readers.labels import LabelReader, label_spec
from vadv_dist.data.readers.option_names import in_clips
from vadv_dist.data.readers.splits import split_rule
from vadv_dist.data.schema import LabelSpec
from vadv_dist.errors import UserError
from vadv_dist.features.clip_files import file_entry
from vadv_dist.formats.csv_lines import number_of
from vadv_dist.formats.table_rows import TableFormat
from vadv_dist.formats.tabular import open_table
from vadv_dist.storage import Location, join, local_copy, location

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
        file: the table.
        files: the files that it consists of, with their sizes and hashes.
        root: base folder of the clips' paths.
        source: source name of all clips.
        label: kind and range of the labels.
        said: how the table was read, in sentences.
    """

    file: Location
    root: Location
    source: str
    clips: tuple[ListedClip, ...]
    label: LabelSpec
    said: tuple[str, ...]
    files: tuple[dict[str, object], ...]

    @property
    def sha256(self) -> str:
        """SHA-256 of the list: of its file, or over those of its files."""
        digests = [str(file["sha256"]) for file in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def location(self, clip: ListedClip) -> str:
        """Location of a clip's file."""
        return str(join(self.root, clip.path))


def label_of(config: ClipsConfig) -> LabelSpec:
    """Kind and range of the labels of an extraction.

    Raises:
        UserError: the classes are not two or more different names.
    """
    return label_spec(config.label_range, config.threshold, config.classes, in_clips)


def list_clips(config: ClipsConfig) -> ClipList:
    """Read the configured list.

    Raises:
        UserError: no list is configured or it does not exist, a column is missing, or a row cannot become a clip.
    """
    if config.csv is not None:
        file = location(config.csv)
        root = file.parent if config.root is None else location(config.root)
        name = Path(file.name).stem
    elif config.mmsa is not None:
        folder = location(config.mmsa)
        file, root, name = folder / "label.csv", folder, folder.name
        if not (folder / "Raw").is_dir():
            raise UserError(
                f"{folder} has no folder Raw, so it is not MMSA's raw layout (label.csv next to "
                "Raw/<video_id>/<clip_id>.mp4). Use the folder that contains both, or a list with clips.csv."
            )
    else:
        raise UserError(
            "No clips are configured. Set clips.csv to a table with the columns "
            f"{', '.join(CSV_COLUMNS)}[, {', '.join(TIME_COLUMNS)}], or clips.mmsa to a folder in MMSA's raw layout."
        )
    label = label_of(config)
    labels = LabelReader(label, config.label_map, in_clips)
    rule = split_rule(config.split_map, config.split, config.valid_fraction, config.seed, in_clips)
    with _local(file) as path:
        table = open_table(path, TableFormat(config.delimiter, config.encoding), where=file, option="clips.csv")
        reader = ClipTable(
            table,
            file,
            _columns(config),
            labels,
            rule,
            others=(config.path_column,) if config.csv is not None else ("video_id", "clip_id"),
            optional=TIME_COLUMNS,
            words_needed=config.transcribe is None,
            default_id="clip_id",
            option=in_clips,
        )
        rows = rule.apply(list(reader.rows()), label, file)
        said = (*reader.said, *labels.said(), *rule.said())
        files = tuple(file_entry(location(str(part))) | {"name": part.name} for part in table.files)
    clips = [_listed(row, config) for row in rows]
    _require_parts(file, clips)
    names = own_names([(clip.clip_id, clip.path) for clip in clips])
    named = tuple(replace(clip, names=own) for clip, own in zip(clips, names, strict=True))
    return ClipList(file, root, config.source or name, named, label, said, files)


@contextmanager
def _local(file: Location) -> Iterator[Path]:
    try:
        with local_copy(file) as path:
            yield path
    except FileNotFoundError:
        raise UserError(f"{file} does not exist. Give the table with clips.csv.") from None


def _columns(config: ClipsConfig) -> Columns:
    if config.csv is None:
        return Columns(("video_id", "clip_id"), split_column="mode")
    return Columns(
        config.id_column,
        config.text_column,
        config.fallback_text_column,
        config.split_column,
        config.label_column,
        config.video_column,
    )


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


def _listed(row: ClipRow, config: ClipsConfig) -> ListedClip:
    others = row.others or {}
    path = others.get(config.path_column, "")
    if config.csv is None:
        path = f"Raw/{others['video_id']}/{others['clip_id']}.mp4"
    if not path:
        raise UserError(
            f"{row.where}: {config.path_column} is empty (clip {row.clip_id!r}). Fill it in, or remove the row."
        )
    try:
        join(Path(), path)
    except UserError as error:
        raise UserError(f"{row.where}: the path is not a readable location: {error}") from None
    times: list[float | None] = []
    fault = None
    for name in TIME_COLUMNS:
        cell = others.get(name, "")
        value = number_of(cell)
        seconds = value if math.isfinite(value) else None
        if cell and (seconds is None or seconds < 0):
            fault = f"{WRONG_TIMES}: {name} is {cell!r}, expected seconds from 0"
            seconds = None
        times.append(seconds)
    start, end = times
    if fault is None and end is not None and end <= (start or 0.0):
        fault = f"{WRONG_TIMES}: it ends at {end:g} s but starts at {start or 0.0:g} s"
    return ListedClip(row.clip_id, row.video_id, row.split, row.label, row.text, path, start, end, fault=fault)


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

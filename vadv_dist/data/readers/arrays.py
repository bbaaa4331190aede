"""Feature arrays of an `.npz` file, keyed by clip id.

Shape letters: R rows of a file, T frames, N tokens per frame, D feature width, E expression scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vadv_dist.data.readers.ingestion import MAX_LABEL_DIFFERENCE, printable
from vadv_dist.data.readers.sequences import stored
from vadv_dist.data.schema import FEATURE_AXES, Array, FeatureSpec
from vadv_dist.errors import UserError, did_you_mean, similar_file
from vadv_dist.formats.npz import NpzFile

_ID_KEY = "id"
# Ids become Python strings, each several times its size in the array.
_MAX_ID_BYTES = 64 << 20
_MAX_EXAMPLES = 3
_SYNTAX = "FILE.npz:ARRAY=FEATURE, for example features.npz:video=visual"
# The layout of an array by its number of axes; without T a clip is one frame, without N a frame is one token.
_LAYOUTS = {
    "visual": {2: "[R, D]", 3: "[R, T, D]", 4: "[R, T, N, D]"},
    "face": {2: "[R, E]", 3: "[R, T, E]"},
    "audio": {2: "[R, D]", 3: "[R, T, D]"},
}


@dataclass(frozen=True)
class ArraySource:
    """The array of a file that becomes a feature."""

    path: Path
    key: str
    feature: str

    def __str__(self) -> str:
        return f"{self.path}:{self.key}"


@dataclass(frozen=True)
class FeatureTable:
    """A feature of some clips: values [R, ...] in a data set's layout, the row of each clip id, the stored type.

    `facts` are other arrays of the file with one value per clip, [R], by the name of the corresponding table column.
    """

    source: ArraySource
    values: Array
    row_of: dict[str, int]
    dtype: str
    facts: Mapping[str, Array]

    @property
    def spec(self) -> FeatureSpec:
        """Shape and stored type of one clip's values."""
        return FeatureSpec(tuple(self.values.shape[1:]), self.dtype)

    def row(self, clip_id: str) -> Array | None:
        """A clip's values in the stored type; None if the clip has no row.

        Raises:
            UserError: values that are NaN, infinite or too large for the type.
        """
        row = self.row_of.get(clip_id)
        if row is None:
            return None
        values = self.values[row]
        if not np.isfinite(values).all():
            raise UserError(
                f"{self.source} has NaN or infinity in the row of id {clip_id!r}. Fix the array, or leave the clip out."
            )
        return stored(values, self.dtype, f"{self.source}: the row of id {clip_id!r}")


def parse_array_sources(texts: Sequence[str]) -> list[ArraySource]:
    """Parse options of the form `FILE.npz:ARRAY=FEATURE`.

    Raises:
        UserError: invalid syntax, an unknown feature, or two arrays for the same feature.
    """
    sources: dict[str, ArraySource] = {}
    for text in texts:
        path, _, mapping = text.rpartition(":")
        key, _, feature = mapping.partition("=")
        if not (path and key and feature):
            raise UserError(f"--arrays {text} cannot be parsed. Write it as {_SYNTAX}.")
        if feature not in FEATURE_AXES:
            known = ", ".join(FEATURE_AXES)
            raise UserError(
                f"--arrays {text}: unknown feature {feature!r}, expected one of {known}."
                f"{did_you_mean(feature, FEATURE_AXES)}"
            )
        if feature in sources:
            raise UserError(f"--arrays has {feature!r} more than once. Give each feature once.")
        sources[feature] = ArraySource(Path(path), key, feature)
    return list(sources.values())


def load_features(source: ArraySource, dtype: str, facts: Sequence[str] = ()) -> FeatureTable:
    """Read one feature and the ids of its rows; pickled objects are never loaded.

    An uncompressed array stays in the file until its rows are used.

    Args:
        source: the file and its array.
        dtype: the type to store, `float16` or `float32`.
        facts: names of arrays to read as well, if the file has them with one number or text per row.

    Raises:
        UserError: the file is missing, is not an `.npz`, contains pickled objects, or lacks the array or its ids, or
            the array is not numeric or has the wrong number of axes.
    """
    if not source.path.is_file():
        raise UserError(f"{source.path} does not exist.{similar_file(source.path)} Give the .npz file as {_SYNTAX}.")
    with NpzFile(source.path) as file:
        ids = file.array(_ID_KEY, what=", which holds the clip id of each row", max_bytes=_MAX_ID_BYTES)
        values = _in_layout(file.array(source.key), source)
        found = {key: file.array(key) for key in facts if key in file.names and key not in (_ID_KEY, source.key)}
        rows = _rows_by_id(ids, len(values), source)
    per_clip = {key: array.reshape(-1) for key, array in found.items() if array.size == len(rows) > 0}
    return FeatureTable(source, values, rows, dtype, per_clip)


def select_features(table: FeatureTable, wanted: Mapping[str, str], allow_missing: bool) -> FeatureTable:
    """Keep the rows of some clips.

    Args:
        table: the feature as it was read.
        wanted: clip ids, each with its place in the user's file.
        allow_missing: skip clips without a row instead of refusing them.

    Raises:
        UserError: a clip has no row.
    """
    found = {clip_id: table.row_of[clip_id] for clip_id in wanted if clip_id in table.row_of}
    if len(found) == len(wanted) or (found and allow_missing):
        return replace(table, row_of=found)
    missing = [clip_id for clip_id in wanted if clip_id not in found]
    others = [clip_id for clip_id in table.row_of if clip_id not in wanted]
    what = f"{wanted[missing[0]]}: {_counted(missing, len(wanted), 'clips')} have no row in {table.source}"
    if others:
        what += f", and {_counted(others, len(table.row_of), 'ids')} of its {_ID_KEY!r} array are no clips of the table"
    if not found:
        raise UserError(f"{what}. Give the array the ids of the table, or the table those of the array (--id-column).")
    raise UserError(
        f"{what}. Use an array with every clip, or --allow-missing-arrays to store {table.source.feature} as missing "
        "for such clips."
    )


def require_agreement(table: FeatureTable, column: str, in_table: Mapping[str, str | float]) -> None:
    """Refuse a file whose labels or videos differ from the table's for the same ids.

    Args:
        table: a feature with the file's facts.
        column: name of the fact.
        in_table: the table's value for each clip, by id.

    Raises:
        UserError: with the first clip that differs.
    """
    values = table.facts.get(column)
    if values is None:
        return
    differing, compared = [], 0
    for clip_id, mine in in_table.items():
        row = table.row_of.get(clip_id)
        if row is None:
            continue
        theirs = values[row]
        if isinstance(mine, float):
            if values.dtype.kind not in "fiu" or not np.isfinite(theirs):
                continue
            same = abs(float(theirs) - mine) <= MAX_LABEL_DIFFERENCE
        else:
            theirs = theirs.decode("utf-8", "replace") if isinstance(theirs, bytes) else str(theirs)
            same = theirs == mine
        compared += 1
        if not same:
            differing.append((clip_id, theirs, mine))
    if differing:
        clip_id, theirs, mine = differing[0]
        raise UserError(
            f"{table.source.path} has {column} {theirs!s:.80} for id {clip_id!r}, but the table has {mine!s:.80} "
            f"({len(differing):,} of {compared:,} clips differ): the ids of the two files do not mean the same clips. "
            f"If the file's {column!r} array is something else, rename it."
        )


def _counted(ids: Sequence[str], total: int, what: str) -> str:
    """A count with examples: `3 of 9 clips ('a_1', 'a_2', …)`."""
    shown = ", ".join(repr(printable(one)) for one in ids[:_MAX_EXAMPLES])
    more = ", …" if len(ids) > _MAX_EXAMPLES else ""
    return f"{len(ids):,} of {total:,} {what} ({shown}{more})"


def _in_layout(values: Array, source: ArraySource) -> Array:
    if values.dtype.kind not in "fiu":
        raise UserError(f"{source} has {values.dtype} values, expected numbers.")
    layouts = _LAYOUTS[source.feature]
    if values.ndim not in layouts or 0 in values.shape[1:]:
        expected = " or ".join(layouts.values())
        raise UserError(f"{source} has shape {list(values.shape)}, expected {expected} for {source.feature}.")
    missing = 0 if source.feature == "audio" else max(layouts) - values.ndim
    return np.expand_dims(values, tuple(range(-1 - missing, -1)))


def _rows_by_id(ids: Array, num_rows: int, source: ArraySource) -> dict[str, int]:
    if ids.shape != (num_rows,):
        raise UserError(
            f"{source} has {num_rows} rows, but {_ID_KEY!r} in that file has shape {list(ids.shape)}, "
            f"expected [{num_rows}]."
        )
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in ids.tolist()]
    row_of = {name: row for row, name in enumerate(names)}
    if len(row_of) != len(names):
        twice = next(name for row, name in enumerate(names) if row_of[name] != row)
        raise UserError(
            f"{source.path} has id {printable(twice)!r} more than once in {_ID_KEY!r}. Keep one row per clip."
        )
    return row_of

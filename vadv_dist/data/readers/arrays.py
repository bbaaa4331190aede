"""Feature arrays of an `.npz` file, keyed by clip id.

Shape letters: R rows of a file, T frames, N tokens per frame, D feature width, E expression scores.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vadv_dist.data.schema import FEATURE_AXES, Array, FeatureSpec
from vadv_dist.errors import UserError, did_you_mean

DTYPES = ("float16", "float32")
_ID_KEY = "id"
# What damaged or exotic zip members raise.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_SYNTAX = "FILE.npz:ARRAY=FEATURE, for example features.npz:video=visual"
# What an array of so many axes holds; without T a clip is one frame, without N a frame is one token.
_LAYOUTS = {
    "visual": {2: "[R, D]", 3: "[R, T, D]", 4: "[R, T, N, D]"},
    "face": {2: "[R, E]", 3: "[R, T, E]"},
    "audio": {2: "[R, D]", 3: "[R, T, D]"},
}


@dataclass(frozen=True)
class ArraySource:
    """Which array of which file becomes which feature."""

    path: Path
    key: str
    feature: str

    def __str__(self) -> str:
        return f"{self.path}:{self.key}"


@dataclass(frozen=True)
class FeatureTable:
    """A feature of some clips: values [R, ...] in the layout of a data set, and the row of each clip id."""

    source: ArraySource
    values: Array
    row_of: dict[str, int]

    @property
    def spec(self) -> FeatureSpec:
        """Shape and type of one clip's values."""
        return FeatureSpec(tuple(self.values.shape[1:]), self.values.dtype.name)


def parse_array_source(text: str) -> ArraySource:
    """Read `FILE.npz:ARRAY=FEATURE`.

    Raises:
        UserError: another syntax, or a feature that a data set cannot hold.
    """
    path, colon, mapping = text.rpartition(":")
    key, equals, feature = mapping.partition("=")
    if not (colon and equals and path and key and feature):
        raise UserError(f"--arrays {text} cannot be read. Write it as {_SYNTAX}.")
    if feature not in FEATURE_AXES:
        known = ", ".join(FEATURE_AXES)
        raise UserError(
            f"--arrays {text}: unknown feature {feature!r}; a data set may hold {known}."
            f"{did_you_mean(feature, FEATURE_AXES)}"
        )
    return ArraySource(Path(path), key, feature)


def parse_array_sources(texts: Sequence[str]) -> list[ArraySource]:
    """Read all `--arrays` options.

    Raises:
        UserError: one cannot be read, or two give the same feature.
    """
    sources = [parse_array_source(text) for text in texts]
    features = [source.feature for source in sources]
    for feature in features:
        if features.count(feature) > 1:
            raise UserError(f"--arrays gives {feature!r} {features.count(feature)} times. Give each feature once.")
    return sources


def load_features(source: ArraySource) -> FeatureTable:
    """Read one feature and the ids of its rows; nothing pickled is ever loaded.

    Raises:
        UserError: the file is missing, is not an `.npz`, holds pickled objects, lacks the array or its ids, or the
            array is not numeric or has another number of axes.
    """
    if not source.path.is_file():
        raise UserError(f"{source.path} does not exist. Give the .npz file as {_SYNTAX}.")
    if not zipfile.is_zipfile(source.path):
        raise UserError(
            f"{source.path} is not an .npz file; nothing else is loaded, and nothing pickled ever is. "
            f"Save numeric arrays with numpy.savez(FILE, id=ids, {source.key}=values)."
        )
    try:
        with np.load(source.path, allow_pickle=False) as arrays:
            ids, values = (_member(arrays, key, source.path) for key in (_ID_KEY, source.key))
    except _UNREADABLE as error:
        if "pickle" in str(error):  # numpy tells it apart from other unreadable content by its message alone
            raise UserError(
                f"{source} or its ids are pickled objects, and nothing pickled is loaded: it could run code. "
                "Save plain numeric arrays, and ids as strings, with numpy.savez."
            ) from None
        raise UserError(f"{source.path} is not a readable .npz file ({error}). Save it again.") from None
    return FeatureTable(source, _in_layout(values, source), _rows_by_id(ids, len(values), source))


def select_features(table: FeatureTable, wanted: dict[str, str], dtype: str, allow_missing: bool) -> FeatureTable:
    """Keep the rows of some clips, as the type that the data set stores.

    Args:
        table: a feature as it was read.
        wanted: clip ids, each with where it stands in the user's file.
        dtype: `float16` or `float32`.
        allow_missing: leave clips out of the result that have no row, rather than refusing them.

    Raises:
        UserError: a clip without a row, or values that are NaN, infinite or too large for the type.
    """
    found = {}
    for clip_id, where in wanted.items():
        if clip_id in table.row_of:
            found[clip_id] = table.row_of[clip_id]
        elif not allow_missing:
            raise UserError(
                f"{where}: id {clip_id!r} has no row in {table.source} (its {_ID_KEY!r} array holds "
                f"{len(table.row_of)} ids). Give an array of every clip, or --allow-missing-arrays to store "
                f"{table.source.feature} as missing there."
            )
    if not found:
        raise UserError(f"Not one id is in {table.source}. Check that its {_ID_KEY!r} array holds the same ids.")
    values = table.values[list(found.values())]
    ids = list(found)
    if (bad := _first_row(~np.isfinite(values))) is not None:
        raise UserError(
            f"{table.source} has NaN or infinity in the row of id {ids[bad]!r}. Mend the array, or leave the clip out."
        )
    limit = float(np.finfo(dtype).max)
    if (bad := _first_row(np.abs(values) > limit)) is not None:
        worst = float(np.abs(values[bad]).max())
        advice = "Give --dtype float32." if dtype == "float16" else "Scale the array down."
        raise UserError(
            f"{table.source} holds {worst:g} in the row of id {ids[bad]!r}, more than {dtype} can ({limit:g}). {advice}"
        )
    return replace(table, values=values.astype(dtype), row_of={clip_id: i for i, clip_id in enumerate(ids)})


def _member(arrays: "np.lib.npyio.NpzFile", key: str, path: Path) -> Array:
    if key not in arrays.files:
        what = f"no {key!r} array" + (", which names the clip of each row" if key == _ID_KEY else "")
        raise UserError(f"{path} has {what} (arrays: {', '.join(arrays.files)}).{did_you_mean(key, arrays.files)}")
    member: Array = arrays[key]
    return member


def _in_layout(values: Array, source: ArraySource) -> Array:
    if values.dtype.kind not in "fiu":
        raise UserError(f"{source} holds {values.dtype} values, expected numbers.")
    layouts = _LAYOUTS[source.feature]
    if values.ndim not in layouts or 0 in values.shape[1:]:
        expected = " or ".join(layouts.values())
        raise UserError(f"{source} has shape {list(values.shape)}, expected {expected} for {source.feature}.")
    if source.feature == "visual" and values.ndim == 2:
        return values[:, None, None, :]
    if source.feature == "visual" and values.ndim == 3:
        return values[:, :, None, :]
    if source.feature == "face" and values.ndim == 2:
        return values[:, None, :]
    return values


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
        raise UserError(f"{source.path} has id {twice!r} more than once in {_ID_KEY!r}. Keep one row per clip.")
    return row_of


def _first_row(bad: Array) -> int | None:
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1))
    return int(rows[0]) if len(rows) else None

"""Read the pickled feature files that MMSA publishes into a data set.

A file is `{train, valid, test}`, each with columns of equal length: `id` (`video$_$clip`), `raw_text`,
`regression_labels`, `vision` and `audio` [R, T, D] padded with zeros, and in unaligned files `vision_lengths` and
`audio_lengths`. Files of `vadv data-export mmsa` also have `clip_id`, `video_id`, `source`, `vision_missing` and
`audio_missing`. Shape letters: R rows of a split, L rows of a sequence, T frames, D width.

A pickle cannot be read in parts, so the file is memory-mapped: arrays stay in it until a row is needed, and only texts,
ids and labels are in memory (and arrays of protocol 2, which are written as text).
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vadv_dist.data.readers.ingestion import (
    Ingestion,
    IngestSummary,
    bad_row,
    ingesting,
    new_dataset,
    printable,
)
from vadv_dist.data.readers.labels import label_spec
from vadv_dist.data.readers.pickles import read_pickle
from vadv_dist.data.readers.sequences import Framing, looks_transposed, require_one_of, trim_zeros
from vadv_dist.data.readers.splits import SPLIT_NAMES
from vadv_dist.data.schema import SPLITS, Array, Clip, LabelSpec
from vadv_dist.data.video_ids import video_of
from vadv_dist.errors import UserError, did_you_mean, similar_file
from vadv_dist.storage import local_path

_SEPARATOR = "$_$"
_LABELS = "regression_labels"
VISION_FEATURES = ("visual", "face")
# Tolerates single mislabelled rows in published files.
_MAX_CONTRADICTIONS = 0.02


def ingest_mmsa(
    file: str | Path,
    out: str | Path,
    *,
    label_key: str = _LABELS,
    label_range: tuple[float, float] = (LabelSpec.low, LabelSpec.high),
    threshold: float | None = None,
    vision_as: str = "visual",
    features: Sequence[str] = ("vision", "audio"),
    framing: Framing | None = None,
    bad_rows: str = "drop",
    source: str | None = None,
) -> IngestSummary:
    """Create a data set from an MMSA pickle without executing code from it; on an error nothing is left behind.

    Args:
        file: `{train, valid, test}` of columns, protocol 2 to 5.
        out: the folder to create.
        label_key: the column of labels.
        label_range: lowest and highest label.
        threshold: label that separates negative from positive; None means the middle of the range.
        vision_as: the feature that `vision` becomes, `visual` or `face`.
        features: which of `vision` and `audio` to read.
        framing: how sequences become frames.
        bad_rows: `drop` or `error`, for rows that cannot become a clip.
        source: source name of all clips; by default that of the file.

    Raises:
        UserError: the file or an option is invalid.
    """
    path, label, framing = local_path(file), label_spec(label_range, threshold), framing or Framing()
    require_one_of("--vision-as", vision_as, VISION_FEATURES)
    for name in features:
        require_one_of("--features", name, ("vision", "audio"))
    root = new_dataset(out)
    feature_of = {name: vision_as if name == "vision" else "audio" for name in dict.fromkeys(features)}
    splits = _splits(path, label_key, tuple(feature_of))
    given = [f"{name}_lengths" for name in feature_of if all(name in split.lengths for split in splits)]
    # A damaged file may contain numbers of any size and any NaN; both are checked and need no warning.
    with (
        np.errstate(invalid="ignore", over="ignore"),
        ingesting(
            root,
            made_by="vadv ingest mmsa",
            files=[path],
            options={
                "label_key": label_key,
                "vision_as": vision_as,
                "padding": ", ".join(given) + " in the file" if given else "rows of zeros at either end are removed",
            },
            features={
                feature: framing.spec(feature, _width(splits, name, path)) for name, feature in feature_of.items()
            },
            label=label,
            bad_rows=bad_rows,
            framing=framing,
        ) as ingestion,
    ):
        for split in splits:
            for row in range(len(split.ids)):
                with ingestion.row(path, f"{split.key} row {row}") as where:
                    clip_id, video_id = split.names(row, where)
                    values = {
                        feature: ingestion.frames(feature, _sequence(ingestion, split, name, row, where), where, name)
                        for name, feature in feature_of.items()
                    }
                    text = _text(split.texts[row], "raw_text", where).strip()
                    own = _text(split.own["source"][row], "source", where) if "source" in split.own else path.stem
                    clip = Clip(clip_id, video_id, text, _label(split.labels[row]), source or own, values)
                    ingestion.add(split.name, clip, where)
    return ingestion.summary()


@dataclass(frozen=True)
class _Split:
    """Columns of one split, all of the same length.

    Attributes:
        key: the split's name in the file.
        name: train, valid or test.
        values: sequences by column, an array [R, L, D] or a list of R arrays [L, D].
        lengths: unpadded length of each sequence, by column, if the file has it.
        own: columns of our own exports that the file has.
    """

    key: str
    name: str
    ids: list[Any]
    texts: list[Any]
    labels: list[Any]
    values: dict[str, Array | list[Any]]
    lengths: dict[str, list[Any]]
    own: dict[str, list[Any]]

    def names(self, row: int, where: str) -> tuple[str, str]:
        """A row's clip id and video."""
        if {"clip_id", "video_id"} <= self.own.keys():
            clip_id, video_id = (_text(self.own[name][row], name, where) for name in ("clip_id", "video_id"))
            return clip_id, video_id
        return _names(self.ids[row], where)


def _splits(path: Path, label_key: str, columns: Sequence[str]) -> list[_Split]:
    raw = read_pickle(_content(path), str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path} contains a {type(raw).__name__}, expected a dictionary of train, valid and test.")
    named = {key: SPLIT_NAMES[key] for key in raw if key in SPLIT_NAMES}
    if not named:
        keys = ", ".join(printable(key) for key in list(raw)[:10]) or "nothing"
        raise UserError(f"{path} has none of train, valid and test (it has: {keys}). Use a feature file of MMSA.")
    if len(set(named.values())) < len(named):
        raise UserError(f"{path} has a split twice ({', '.join(named)}). Keep one of each.")
    order = sorted(named, key=lambda key: SPLITS.index(named[key]))
    return [_split(path, key, named[key], raw[key], label_key, columns) for key in order]


def _content(path: Path) -> memoryview:
    """The file's bytes, memory-mapped."""
    if not path.is_file():
        what = "is a folder, expected a pickle" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}.{similar_file(path)} Give the .pkl file with --file.")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty, expected a pickle.")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _split(path: Path, key: str, name: str, raw: Any, label_key: str, columns: Sequence[str]) -> _Split:
    if not isinstance(raw, dict):
        raise UserError(f"{path} has a {type(raw).__name__} as {key}, expected a dictionary of columns.")
    where = f"{path} {key}"

    def column(column_name: str) -> Any:
        if column_name not in raw:
            advice = "Choose another with --label-key." if column_name == label_key else "Leave it out with --features."
            advice = advice if column_name in (label_key, *columns) else "Use a feature file of MMSA."
            known = ", ".join(printable(known) for known in list(raw)[:20])
            near = did_you_mean(column_name, list(raw)[:100])
            raise UserError(f"{where} has no {column_name!r} (it has: {known}).{near} {advice}")
        return raw[column_name]

    ids = _flat(column("id"), f"{where} id", None)
    rows = len(ids)
    values = {one: _sequences(column(one), f"{where} {one}", rows) for one in columns}
    given = [one for one in columns if raw.get(f"{one}_lengths") is not None]
    lengths = {one: _flat(raw[f"{one}_lengths"], f"{where} {one}_lengths", rows) for one in given}
    labels = _flat(column(label_key), f"{where} {label_key}", rows)
    if label_key == _LABELS and raw.get("annotations") is not None:
        _require_agreement(labels, _flat(raw["annotations"], f"{where} annotations", rows), where)
    texts = _flat(column("raw_text"), f"{where} raw_text", rows)
    own = {
        one: _flat(raw[one], f"{where} {one}", rows)
        for one in ("clip_id", "video_id", "source", *(f"{one}_missing" for one in columns))
        if raw.get(one) is not None
    }
    return _Split(key, name, ids, texts, labels, values, lengths, own)


def _require_agreement(labels: Sequence[Any], annotations: Sequence[Any], where: str) -> None:
    """Refuse labels whose signs contradict the file's own annotations: the columns are in different orders.

    Raises:
        UserError: with the first contradicting row, if there are more than a few.
    """
    signs = {"pos": 1, "neg": -1}
    known = [
        (row, _label(label), annotation)
        for row, (label, annotation) in enumerate(zip(labels, annotations, strict=True))
        if isinstance(annotation, str) and annotation[:3].lower() in signs
    ]
    wrong = [(row, label, word) for row, label, word in known if label * signs[word[:3].lower()] < 0]
    if len(wrong) > _MAX_CONTRADICTIONS * len(known):
        row, label, word = wrong[0]
        raise UserError(
            f"{where}: in {len(wrong):,} of {len(known):,} rows {_LABELS} and annotations contradict each other (row "
            f"{row}: {label:g}, {printable(word)!r}), so the columns are in different orders. Download the file "
            "again, or choose another column with --label-key."
        )


def _flat(value: Any, where: str, rows: int | None) -> list[Any]:
    """A column as a list of `rows` items; [R, 1] is treated as [R]."""
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] == 1:
        value = value[:, 0]
    if isinstance(value, np.ndarray) and value.ndim == 1:
        try:
            value = value.tolist()
        except (ValueError, UnicodeError):
            raise UserError(f"{where} is damaged: it has an invalid character.") from None
    if not isinstance(value, list | tuple):
        shape = f"an array of shape {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise UserError(f"{where} is {shape}, expected a list or an array of one axis.")
    _require_rows(len(value), rows, where)
    return list(value)


def _sequences(value: Any, where: str, rows: int) -> Array | list[Any]:
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        if value.dtype.kind not in "fiu" or value.ndim not in (2, 3) or 0 in value.shape[1:]:
            raise UserError(
                f"{where} has shape {list(value.shape)} ({value.dtype}), expected numbers of shape [R, L, D] or [R, D]."
            )
        _require_rows(len(value), rows, where)
        if value.ndim == 2:
            return value[:, None, :]
        if looks_transposed(value):
            raise UserError(
                f"{where} has shape {list(value.shape)} and padding along the last axis only: its layout seems to be "
                "[R, D, L], expected [R, L, D]. Transpose its last two axes."
            )
        return value
    return _flat(value, where, rows)


def _require_rows(found: int, rows: int | None, where: str) -> None:
    if rows is not None and found != rows:
        raise UserError(f"{where} has {found:,} rows, but there are {rows:,} ids. The file is damaged.")


def _width(splits: Sequence[_Split], name: str, path: Path) -> int:
    """D of a column: that of the first sequence with one."""
    for split in splits:
        values = split.values[name]
        if isinstance(values, np.ndarray):
            return int(values.shape[2])
        for value in values:
            if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1]:
                return int(value.shape[1])
    raise UserError(f"{path} has no array of shape [L, D] in {name}. Leave it out with --features.")


def _names(value: Any, where: str) -> tuple[str, str]:
    """A row's clip id and video."""
    name = _text(value, "id", where)
    video_id, separator, clip = name.partition(_SEPARATOR)
    if not separator:
        return name, video_of(name)
    clip_id = f"{video_id}_{clip}"
    return clip_id, video_id or clip_id


def _sequence(ingestion: Ingestion, split: _Split, column: str, row: int, where: str) -> Array:
    """A row's sequence without padding, [L, D]; L is 0 if it is empty."""
    values = split.values[column][row]
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "fiu":
        raise bad_row(f"{column} is not a sequence", where, f"{column} is not an array of numbers [L, D].")
    if split.own.get(f"{column}_missing", {row: False})[row] is True:
        return np.asarray(values[:0])
    if column not in split.lengths:
        return trim_zeros(values)
    length = split.lengths[column][row]
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= len(values):
        shown = length if isinstance(length, int) and abs(length) < 1 << 64 else type(length).__name__
        what = f"{column}_lengths is {shown}, but {column} has {len(values):,} rows."
        raise bad_row(f"{column}_lengths is wrong", where, what)
    if values[length:].any():
        if length > 0 and not values[:-length].any():
            ingestion.note(f"clips padded at the front of {column}")
            return np.asarray(values[-length:])
        ingestion.note(f"clips with values of {column} past its length, ignored")
    return np.asarray(values[:length])


def _text(value: Any, column: str, where: str) -> str:
    if isinstance(value, memoryview | bytes):
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError:
            raise bad_row(f"{column} is not text", where, f"{column} is not UTF-8.") from None
    if not isinstance(value, str):
        raise bad_row(f"{column} is not text", where, f"{column} is a {type(value).__name__}, expected text.")
    return value


def _label(value: Any) -> float:
    """A label as a number; NaN if it is not one, which the validation of clips refuses."""
    if isinstance(value, np.ndarray) and value.shape == (1,) and value.dtype.kind in "fiu":
        value = value[0].item()
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")

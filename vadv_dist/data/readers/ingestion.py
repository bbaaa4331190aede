"""Write a reader's clips into a data set: validate every clip, and count every dropped row with its reason."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from vadv_dist.data.dataset import Dataset, DatasetManifest
from vadv_dist.data.readers.sequences import Framing, zero_non_finite
from vadv_dist.data.schema import SPLITS, Array, Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DEFAULT_SHARD_ROWS, DatasetWriter
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, location, sha256_file

BAD_ROWS = ("error", "drop")
_EXAMPLES = 5


class BadRowError(UserError):
    """A row that cannot become a clip.

    Attributes:
        reason: groups such rows when they are counted.
        place: where it is, without the file.
        unwanted: a separate option asks to drop such rows, whatever `bad_rows` says.
    """

    def __init__(self, reason: str, message: str, place: str = "", unwanted: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.place = place
        self.unwanted = unwanted


@dataclass(frozen=True)
class IngestSummary:
    """What was read and written.

    Attributes:
        uri: the data set.
        rows_read, rows_written: number of clips in the files and in the data set.
        splits: clips of each split.
        videos: videos of each split.
        features: shape of each feature per clip.
        missing: clips without a feature, by feature.
        fallback_texts: clips whose text is from the fallback column.
        cut_from_train: clips moved from train to valid.
        fingerprint: fingerprint of the data set.
        dropped: dropped rows, by reason.
        notes: other counts, by description.
    """

    uri: str
    rows_read: int
    rows_written: int
    splits: dict[str, int]
    videos: dict[str, int]
    features: dict[str, list[int]]
    missing: dict[str, int]
    fallback_texts: int
    cut_from_train: int
    fingerprint: str
    label: dict[str, float | None]
    dropped: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The summary as plain containers, for `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        clips = ", ".join(f"{rows:,} {split}" for split, rows in self.splits.items())
        lines = [f"wrote {self.uri}: {self.rows_written:,} of {self.rows_read:,} rows ({clips})"]
        lines += [f"  dropped {count:,}: {reason}" for reason, count in self.dropped.items()]
        if self.cut_from_train:
            lines.append(
                f"  {self.cut_from_train:,} clips of {self.videos['valid']} videos moved from train to validation"
            )
        if self.splits.get("train") and not self.splits.get("valid"):
            lines.append("  no validation split, which training needs (`ingest table` cuts one: --valid-fraction 0.1)")
        if self.fallback_texts:
            lines.append(f"  {self.fallback_texts:,} texts from the fallback column")
        lines += [f"  {line}" for line in _labels_in_words(self.label)]
        for name, shape in self.features.items():
            missing = f", missing in {self.missing[name]:,} clips" if self.missing[name] else ""
            lines.append(f"  {name} {shape}{missing}")
        lines += [f"  {count:,} {what}" for what, count in self.notes.items()]
        return "\n".join(lines)


class Ingestion:
    """Write clips one by one into a data set that appears when the `with` block ends without an error.

    Args:
        out: the folder to create.
        made_by: the command.
        files: source files; their names, sizes and hashes are recorded.
        options: options of the command, recorded.
        features: shape and type of each feature.
        label: kind and range of the labels.
        bad_rows: `error` stops at a row that cannot become a clip, `drop` drops and counts it.
        shard_rows: maximum number of rows per shard.
    """

    def __init__(
        self,
        out: str | Location,
        *,
        made_by: str,
        files: Sequence[Path],
        options: Mapping[str, Any],
        features: Mapping[str, FeatureSpec],
        label: LabelSpec,
        bad_rows: str,
        shard_rows: int = DEFAULT_SHARD_ROWS,
    ) -> None:
        check_bad_rows(bad_rows)
        self.root = location(out)
        self.drops = bad_rows == "drop"
        self.notes: Counter[str] = Counter()
        self.fallback_texts = 0
        self.cut_from_train = 0
        self._dropped: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._seen: dict[str, int] = {}  # hash of each clip's content
        self._videos: dict[str, set[str]] = {split: set() for split in SPLITS}
        self._missing = dict.fromkeys(features, 0)
        self._written = 0
        self._writer = DatasetWriter(
            self.root,
            features=features,
            label=label,
            provenance={
                "made_by": made_by,
                "files": [
                    {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in files
                ],
                "options": dict(options),
            },
            shard_rows=shard_rows,
        )

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if not self._written and self._dropped:
                error = UserError(
                    f"None of the {self.rows_read:,} rows can become a clip: "
                    + ", ".join(f"{reason} ({count:,})" for reason, count in self._dropped.items())
                    + ". Use --bad-rows error to see the first one."
                )
                self._writer.__exit__(type(error), error, None)
                raise error
            for one, other in combinations(SPLITS, 2):
                self.note(f"videos in both {one} and {other}", len(self._videos[one] & self._videos[other]))
            self._writer.provenance["counts"] = {
                "rows_read": self.rows_read,
                "rows_written": self._written,
                "dropped": dict(self._dropped),
                "dropped_for_example": self._examples,
                "notes": dict(self.notes),
            }
        self._writer.__exit__(kind, error, trace)

    @property
    def rows_read(self) -> int:
        """Number of rows so far, written or dropped."""
        return self._written + self._dropped.total()

    def note(self, what: str, count: int = 1) -> None:
        """Add to a count of the summary; counts of 0 are not shown."""
        if count:
            self.notes[what] += count

    def bad(self, reason: str, where: str, what: str) -> BadRowError:
        """The error for a row that cannot become a clip: `where` is a file and a place in it."""
        return BadRowError(reason, f"{where}: {what} Fix the row, or use --bad-rows drop to drop such rows.")

    def drop(self, row: BadRowError) -> None:
        """Count a row as dropped.

        Raises:
            BadRowError: `bad_rows` is `error`.
        """
        if not (self.drops or row.unwanted):
            raise row
        self._dropped[row.reason] += 1
        examples = self._examples.setdefault(row.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(row.place)

    def add(self, split: str, clip: Clip, where: str) -> None:
        """Write one clip, or drop it.

        Raises:
            UserError: the clip cannot be written, and `bad_rows` is `error`.
        """
        try:
            self._check(clip, where)
        except BadRowError as row:
            row.place = row.place or printable(clip.clip_id)
            self.drop(row)
            return
        self._writer.write(split, clip)
        self._written += 1
        self._seen[clip.clip_id] = hash((clip.text, clip.label))
        self._videos[split].add(clip.video_id)
        for name in self._missing:
            self._missing[name] += clip.features.get(name) is None

    def _check(self, clip: Clip, where: str) -> None:
        label = self._writer.label
        if not clip.clip_id:
            raise self.bad("no id", where, "the id is empty.")
        for what, text in (("id", clip.clip_id), ("video id", clip.video_id), ("text", clip.text)):
            if not is_unicode(text):
                raise self.bad(f"{what} is not text", where, f"the {what} contains an invalid character.")
        if clip.clip_id in self._seen:
            if self._seen[clip.clip_id] != hash((clip.text, clip.label)):
                self.note("duplicate ids with another text or label, of which the first is kept")
            raise self.bad("duplicate id", where, f"id {printable(clip.clip_id)!r} is duplicated.")
        if not clip.text.strip() and not label.is_class:
            raise self.bad("no words", where, f"the text is empty (id {printable(clip.clip_id)!r}).")
        if not math.isfinite(clip.label):
            raise self.bad("label is not a number", where, f"the label is {clip.label}, expected {label}.")
        if not label.holds(clip.label):
            raise self.bad(
                "label out of range",
                where,
                f"the label is {clip.label:g}, expected {label}. Is --label-range right?",
            )

    def require_present(self, advice: str) -> None:
        """Refuse a feature that none of the written clips has.

        Raises:
            UserError: with the advice.
        """
        for name, missing in self._missing.items():
            if self._written and missing == self._written:
                raise UserError(f"None of the {self._written:,} clips has a row of {name}. {advice}")

    def summary(self) -> IngestSummary:
        """What was read and written, once the data set is complete."""
        manifest = Dataset.open(self.root).manifest
        splits = [split for split in SPLITS if split in manifest.splits]
        return IngestSummary(
            uri=str(self.root),
            rows_read=self.rows_read,
            rows_written=self._written,
            splits={split: manifest.rows(split) for split in splits},
            videos={split: len(self._videos[split]) for split in splits},
            features={name: list(spec.shape) for name, spec in manifest.features.items()},
            missing=dict(self._missing),
            fallback_texts=self.fallback_texts,
            cut_from_train=self.cut_from_train,
            fingerprint=manifest.fingerprint,
            label=_label_facts(manifest),
            dropped=dict(self._dropped),
            notes=dict(self.notes),
        )

    def frames(self, name: str, values_LD: Array, framing: Framing, where: str) -> Array:
        """Convert a sequence of at least one row to frames [T, D] of the stored type.

        Raises:
            BadRowError: it has NaN or infinity, and such clips are dropped.
            UserError: it has NaN or infinity, or values that the stored type cannot represent.
        """
        cleaned, count = zero_non_finite(values_LD)
        if count:
            what = f"{where}: {name} has NaN or infinity {count:,} times."
            if framing.non_finite == "error":
                raise UserError(f"{what} Use --non-finite zero to replace them by 0, or drop to drop such clips.")
            if framing.non_finite == "drop":
                raise BadRowError(f"NaN or infinity in {name}", what, unwanted=True)
            self.notes[f"NaN or infinite values of {name}, replaced by 0"] += count
            self.notes[f"clips with such values of {name}"] += 1
        framed = framing.apply(cleaned)
        return stored(framed, framing.dtype, f"{where}: {name}")


def stored(values: Array, dtype: str, where: str) -> Array:
    """Convert values to the stored type.

    Raises:
        UserError: the type cannot represent them.
    """
    limit = float(np.finfo(dtype).max)
    worst = float(np.abs(values).max(initial=0))
    if not worst <= limit:
        advice = "Use --dtype float32." if dtype == "float16" else "Scale the features down."
        raise UserError(f"{where} has {worst:g}, which exceeds the range of {dtype} ({limit:g}). {advice}")
    return values.astype(dtype)


def check_bad_rows(bad_rows: str) -> None:
    """Refuse an unknown policy.

    Raises:
        UserError: it is not one of `BAD_ROWS`.
    """
    if bad_rows not in BAD_ROWS:
        raise UserError(f"--bad-rows is {bad_rows!r}, expected one of {', '.join(BAD_ROWS)}.")


def label_spec(label_range: tuple[float, float], threshold: float | None = None) -> LabelSpec:
    """Labels that are numbers in a range, positive from a threshold on (None: the middle of the range).

    Raises:
        UserError: it is not a range, or the threshold is outside it.
    """
    low, high = label_range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError(f"--label-range is {low:g} {high:g}, expected two numbers, the lower one first.")
    if threshold is not None and not low < threshold < high:
        raise UserError(
            f"--threshold is {threshold:g}, expected a number between the lowest and the highest label ({low:g} and "
            f"{high:g}, see --label-range): labels from the threshold on are positive, those below it negative."
        )
    return LabelSpec(float(low), float(high), threshold=threshold)


def _label_facts(manifest: DatasetManifest) -> dict[str, float | None]:
    """Range and threshold of the labels (none for classes), and the lowest and highest label found."""
    label, splits = manifest.label, manifest.statistics.values()
    return {
        "low": label.low,
        "high": label.high,
        "threshold": None if label.is_class else label.positive_from,
        "min": min(split["label_min"] for split in splits),
        "max": max(split["label_max"] for split in splits),
    }


def _labels_in_words(label: Mapping[str, float | None]) -> list[str]:
    """Describe the labels found, with a warning if they do not fit the range."""
    low, high, threshold, least, most = (label[name] for name in ("low", "high", "threshold", "min", "max"))
    if threshold is None or low is None or high is None or least is None or most is None:
        return []
    lines = [f"labels from {least:g} to {most:g} in [{low:g}, {high:g}], positive from {threshold:g}"]
    if most - least < (high - low) / 2 or not least < threshold <= most:
        why = "fill less than half of that range" if least < threshold <= most else "are on one side of the threshold"
        lines.append(
            f"warning: these labels {why}, so class metrics may mean little; check --label-range and --threshold"
        )
    return lines


def is_unicode(text: str) -> bool:
    """Whether a text can be stored: unpaired surrogates and characters beyond Unicode cannot."""
    try:
        text.encode().decode()
    except UnicodeError:
        return False
    return True


def printable(text: str) -> str:
    """Shorten a text from a file so that it is safe to print and to store."""
    return text[:80].encode("utf-8", "replace").decode("utf-8", "replace")

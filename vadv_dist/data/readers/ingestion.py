"""Write a reader's clips into a data set: validate every clip, and count every dropped row with its reason."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from vadv_dist.data.dataset import MANIFEST, Dataset
from vadv_dist.data.readers.sequences import Framing, require_one_of, stored, zero_non_finite
from vadv_dist.data.schema import SPLITS, Array, Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, location, require_absent, sha256_file

BAD_ROWS = ("error", "drop")
# Two files describe one annotation: labels are rounded to two or more digits.
MAX_LABEL_DIFFERENCE = 0.02
_EXAMPLES = 5


class BadRowError(UserError):
    """A row that cannot become a clip.

    Attributes:
        reason: groups such rows when they are counted.
        place: where it is, without the file.
        unwanted: a separate option asks to drop such rows, whatever `bad_rows` says.
    """

    def __init__(self, reason: str, message: str, unwanted: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.place = ""
        self.unwanted = unwanted


def bad_row(reason: str, where: str, what: str) -> BadRowError:
    """The error for a row that cannot become a clip: `where` is a file and a place in it."""
    return BadRowError(reason, f"{where}: {what} Fix the row, or use --bad-rows drop to drop such rows.")


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
        label: range and threshold of the labels (no threshold for classes), and the lowest and highest label found.
        dropped: dropped rows, by reason.
        notes: other counts, by description.
        said: how the files were read, in sentences.
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
    label: dict[str, Any]
    dropped: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    said: tuple[str, ...] = ()

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
        if self.label["threshold"] is not None:
            lines += self._label_lines()
        for name, shape in self.features.items():
            missing = f", missing in {self.missing[name]:,} clips" if self.missing[name] else ""
            lines.append(f"  {name} {shape}{missing}")
        lines += [f"  {count:,} {what}" for what, count in self.notes.items()]
        lines += [f"  {sentence}" for sentence in self.said]
        return "\n".join(lines)

    def _label_lines(self) -> list[str]:
        """Describe the labels found, with a warning if they do not fit the range."""
        low, high, threshold, least, most = (self.label[name] for name in ("low", "high", "threshold", "min", "max"))
        lines = [
            f"  labels from {least:g} to {most:g} in [{low:g}, {high:g}], negative below {threshold:g}, positive above"
        ]
        one_sided = not least < threshold <= most
        if one_sided or most - least < (high - low) / 2:
            why = "are on one side of the threshold" if one_sided else "fill less than half of that range"
            lines.append(
                f"  warning: these labels {why}, so class metrics may mean little; check --label-range and --threshold"
            )
        return lines


class Ingestion:
    """Validates clips, writes them one by one, and counts; created by `ingesting`."""

    def __init__(self, writer: DatasetWriter, drops: bool, framing: Framing) -> None:
        self._notes: Counter[str] = Counter()
        self.fallback_texts = 0
        self.cut_from_train = 0
        self.said: tuple[str, ...] = ()
        self._writer, self._drops, self._framing = writer, drops, framing
        self._dropped: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._seen: dict[str, int] = {}  # hash of each clip's content
        self._videos: dict[str, set[str]] = {split: set() for split in SPLITS}
        self._missing = dict.fromkeys(writer.features, 0)
        self._written = 0

    @property
    def rows_read(self) -> int:
        """Number of rows so far, written or dropped."""
        return self._written + self._dropped.total()

    def note(self, what: str, count: int = 1) -> None:
        """Add to a count of the summary; counts of 0 are not shown."""
        if count:
            self._notes[what] += count

    @contextmanager
    def row(self, path: Path, place: str) -> Iterator[str]:
        """Name a row for messages, and drop it if it is found in this context that it cannot become a clip.

        Raises:
            BadRowError: it cannot, and `bad_rows` is `error`.
        """
        try:
            yield f"{path} {place}"
        except BadRowError as bad:
            bad.place = place
            self.drop(bad)

    def drop(self, bad: BadRowError) -> None:
        """Count a row as dropped.

        Raises:
            BadRowError: `bad_rows` is `error`.
        """
        if not (self._drops or bad.unwanted):
            raise bad
        self._dropped[bad.reason] += 1
        examples = self._examples.setdefault(bad.reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(bad.place)

    def add(self, split: str, clip: Clip, where: str) -> None:
        """Write one clip.

        Raises:
            BadRowError: it is not valid.
        """
        self._check(clip, where)
        self._writer.write(split, clip)
        self._written += 1
        self._seen[clip.clip_id] = hash((clip.text, clip.label))
        self._videos[split].add(clip.video_id)
        for name in self._missing:
            self._missing[name] += clip.features.get(name) is None

    def _check(self, clip: Clip, where: str) -> None:
        label = self._writer.label
        if not clip.clip_id:
            raise bad_row("no id", where, "the id is empty.")
        for what, text in (("id", clip.clip_id), ("video id", clip.video_id), ("text", clip.text)):
            if _valid_unicode(text) != text:
                raise bad_row(f"{what} is not text", where, f"the {what} contains an invalid character.")
        if clip.clip_id in self._seen:
            if self._seen[clip.clip_id] != hash((clip.text, clip.label)):
                self.note("duplicate ids with another text or label, of which the first is kept")
            raise bad_row("duplicate id", where, f"id {printable(clip.clip_id)!r} is duplicated.")
        if not clip.text.strip() and not label.is_class:
            raise bad_row("no words", where, f"the text is empty (id {printable(clip.clip_id)!r}).")
        if not math.isfinite(clip.label):
            raise bad_row("label is not a number", where, f"the label is {clip.label}, expected {label}.")
        if not label.holds(clip.label):
            what = f"the label is {clip.label:g}, expected {label}. Is --label-range right?"
            raise bad_row("label out of range", where, what)

    def frames(self, feature: str, values_LD: Array, where: str, name: str | None = None) -> Array | None:
        """Convert a sequence to frames of the stored type, [T, 1, D], [T, D] or [D] as declared; None if L is 0.

        Args:
            feature: the feature.
            values_LD: the sequence.
            where: file and row, for messages.
            name: name of the sequence in messages and counts; by default the feature.

        Raises:
            BadRowError: it has NaN or infinity, and such clips are dropped.
            UserError: it has NaN or infinity, or values that the stored type cannot represent.
        """
        if not len(values_LD):
            return None
        framing, name = self._framing, name or feature
        cleaned, count = zero_non_finite(values_LD)
        if count:
            what = f"{where}: {name} has NaN or infinity {count:,} times."
            if framing.non_finite == "error":
                raise UserError(f"{what} Use --non-finite zero to replace them by 0, or drop to drop such clips.")
            if framing.non_finite == "drop":
                raise BadRowError(f"NaN or infinity in {name}", what, unwanted=True)
            self.note(f"NaN or infinite values of {name}, replaced by 0", count)
            self.note(f"clips with such values of {name}")
        frames = stored(framing.apply(cleaned), framing.dtype, f"{where}: {name}")
        num_axes = len(self._writer.features[feature].shape)
        return {1: frames[0], 2: frames, 3: frames[:, None, :]}[num_axes]

    def require_present(self, advice: str) -> None:
        """Refuse a feature that none of the written clips has.

        Raises:
            UserError: with the advice.
        """
        for name, missing in self._missing.items():
            if self._written and missing == self._written:
                raise UserError(f"None of the {self._written:,} clips has a row of {name}. {advice}")

    def finish(self) -> None:
        """Record the counts in the data set.

        Raises:
            UserError: there were rows, and all were dropped.
        """
        if not self._written and self._dropped:
            raise UserError(
                f"None of the {self.rows_read:,} rows can become a clip: "
                + ", ".join(f"{reason} ({count:,})" for reason, count in self._dropped.items())
                + ". Use --bad-rows error to see the first one."
            )
        for one, other in combinations(SPLITS, 2):
            self.note(f"videos in both {one} and {other}", len(self._videos[one] & self._videos[other]))
        self._writer.provenance["counts"] = {
            "rows_read": self.rows_read,
            "rows_written": self._written,
            "dropped": dict(self._dropped),
            "dropped_for_example": self._examples,
            "notes": dict(self._notes),
        }

    def summary(self) -> IngestSummary:
        """What was read and written, once the data set is complete."""
        manifest = Dataset.open(self._writer.root).manifest
        splits = [split for split in SPLITS if split in manifest.splits]
        label, statistics = manifest.label, manifest.statistics.values()
        return IngestSummary(
            uri=str(self._writer.root),
            rows_read=self.rows_read,
            rows_written=self._written,
            splits={split: manifest.rows(split) for split in splits},
            videos={split: len(self._videos[split]) for split in splits},
            features={name: list(spec.shape) for name, spec in manifest.features.items()},
            missing=dict(self._missing),
            fallback_texts=self.fallback_texts,
            cut_from_train=self.cut_from_train,
            fingerprint=manifest.fingerprint,
            label={
                "low": label.low,
                "high": label.high,
                "threshold": None if label.is_class else label.positive_from,
                "min": min(split.label_min for split in statistics if split.label_min is not None),
                "max": max(split.label_max for split in statistics if split.label_max is not None),
            },
            dropped=dict(self._dropped),
            notes=dict(self._notes),
            said=self.said,
        )


@contextmanager
def ingesting(
    out: Location,
    *,
    made_by: str,
    files: Sequence[Path],
    options: Mapping[str, Any],
    features: Mapping[str, FeatureSpec],
    label: LabelSpec,
    bad_rows: str,
    framing: Framing | None = None,
) -> Iterator[Ingestion]:
    """Write clips into a data set that appears when the `with` block ends without an error.

    Args:
        out: the folder to create.
        made_by: the command.
        files: source files; their names, sizes and hashes are recorded.
        options: options of the command, recorded with the label range, the framing and `bad_rows`.
        features: shape and type of each feature.
        label: kind and range of the labels.
        bad_rows: `error` stops at a row that cannot become a clip, `drop` drops and counts it.
        framing: how sequences become frames.

    Raises:
        UserError: an option is invalid, or no row can become a clip.
    """
    require_one_of("--bad-rows", bad_rows, BAD_ROWS)
    of_labels = {} if label.is_class else {"label_range": [label.low, label.high], "threshold": label.positive_from}
    provenance = {
        "made_by": made_by,
        "files": [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in files],
        "options": {**options, **of_labels, **(asdict(framing) if framing else {}), "bad_rows": bad_rows},
    }
    with DatasetWriter(out, features=features, label=label, provenance=provenance) as writer:
        ingestion = Ingestion(writer, bad_rows == "drop", framing or Framing())
        yield ingestion
        ingestion.finish()


def new_dataset(out: str | Path | Location) -> Location:
    """The location of a data set to create, checked before its source is read.

    Raises:
        UserError: it exists.
    """
    root = location(out)
    require_absent(root, "a data set", "Choose another folder, or remove this one.", manifest=MANIFEST)
    return root


def printable(text: str) -> str:
    """Shorten a text from a file so that it is safe to print and to store."""
    return _valid_unicode(text[:80])


def _valid_unicode(text: str) -> str:
    """Replace what cannot be stored: unpaired surrogates, and the characters beyond Unicode that numpy allows."""
    return text.encode(errors="replace").decode(errors="replace")

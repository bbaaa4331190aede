"""Check a whole data set and report every problem instead of stopping at the first."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa

from vadv_dist.data.check_report import LEVELS, CheckReport, Finding, counted
from vadv_dist.data.classes import class_name, counted_classes, listed, unknown_classes, unseen_classes
from vadv_dist.data.columns import arrow_schema, column_fault, rows_not_finite
from vadv_dist.data.dataset import MANIFEST, Dataset
from vadv_dist.data.own_files import listed_parquet
from vadv_dist.data.reading import shard_content
from vadv_dist.data.repeated_texts import RepeatedTexts
from vadv_dist.data.schema import META_COLUMNS, SPLITS, Array, Window, count_words, feature_fault
from vadv_dist.data.shard_list import ShardInfo
from vadv_dist.data.video_ids import numbered_families
from vadv_dist.data.windows import to_window
from vadv_dist.errors import first_line
from vadv_dist.formats.parquet import BoundedParquet, OversizedError
from vadv_dist.storage import Location, file_size, files_below, local_copy, read_json, sha256_file

_AGAIN = "Recreate the data set."
_RESTORE = "Restore the file from its origin, or recreate the data set."
_MAX_EXAMPLES = 3


def check_dataset(uri: str | Path) -> CheckReport:
    """Check sizes, hashes, schema, shapes, counts, ranges, finiteness, texts, and ids over all splits.

    Args:
        uri: the data set; memory holds one shard and all ids at a time.
    Raises:
        UserError: there is no data set, or its `dataset.json` cannot be read.
    """
    check = _Check(Dataset.open(uri))
    check.described()
    for split, shards in check.manifest.splits.items():
        for shard in shards:
            check.shard(split, shard)
    check.videos_in_several_splits()
    if check.manifest.label.is_class:
        check.classes()
    check.prompts()
    check.records()
    check.unlisted_files()
    findings = sorted([*check.findings, *check.texts.findings()], key=lambda finding: LEVELS.index(finding.level))
    num_shards = sum(map(len, check.manifest.splits.values()))
    return CheckReport(str(check.dataset.root), num_shards, check.rows, tuple(findings))


@dataclass
class _Check:
    """Findings so far, and the state carried from shard to shard."""

    dataset: Dataset
    findings: list[Finding] = field(default_factory=list)
    rows: int = 0
    place_of_clip: dict[str, str] = field(default_factory=dict)
    clips_of_video: dict[str, Counter[str]] = field(default_factory=dict)
    clips_of_class: dict[str, Counter[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.manifest = self.dataset.manifest
        self.texts = RepeatedTexts(self.manifest.label)

    def error(self, file: str, name: str | None, what: str, advice: str = _AGAIN, row: int | None = None) -> None:
        self.findings.append(Finding("error", file, row, name, what, advice))

    def changed(self, file: str, path: Location, declared: str) -> None:
        """Report a file whose bytes are not the declared ones."""
        if (actual := sha256_file(path)) != declared:
            what = f"Its SHA-256 is {actual[:12]}…, but dataset.json declares {declared[:12]}…: it was changed."
            self.error(file, None, what, _RESTORE)

    def warning(self, file: str, name: str | None, what: str, advice: str) -> None:
        self.findings.append(Finding("warning", file, None, name, what, advice))

    def described(self) -> None:
        """Check `dataset.json` before any shard is opened."""
        file, manifest = MANIFEST, self.manifest
        raw = read_json(self.dataset.root / file)
        if raw.get("fingerprint") != manifest.fingerprint:
            self.error(file, "fingerprint", "The fingerprint does not match the listed shards: the file was edited.")
        for split in manifest.splits:
            declared = raw["splits"][split].get("rows")
            if split not in SPLITS:
                self.error(file, "splits", f"Unknown split {split!r}, expected one of {', '.join(SPLITS)}.")
            if declared != manifest.rows(split):
                self.error(file, "splits", f"{split} declares {declared} rows, its shards have {manifest.rows(split)}.")
            for path, times in manifest.shards(split).repeated_paths().items():
                self.error(file, "splits", f"{path} is listed {times} times in {split}.")
        for split, what in (("train", "trained on"), ("valid", "used for early stopping"), ("test", "evaluated")):
            if not manifest.rows(split):
                advice = "Create one with `vadv ingest table … --valid-fraction 0.1`." if split == "valid" else _AGAIN
                self.warning(file, "splits", f"There is no {split} split, so nothing can be {what}.", advice)
        for name, spec in manifest.features.items():
            if (fault := feature_fault(name, spec)) is not None:
                self.error(file, "features", fault)
        label = manifest.label
        if not label.low < label.high:
            self.error(file, "label", f"The label range is {label.low:g} to {label.high:g}.")
        if label.is_class and len(label.classes) not in (0, label.high + 1):
            self.error(file, "label", f"It names {len(label.classes)} of {label.high + 1:,.0f} classes.")
        if len(set(label.classes)) < len(label.classes):
            name, times = Counter(label.classes).most_common(1)[0]
            self.error(file, "label", f"{times} classes have the name {name!r}, so results cannot tell them apart.")

    def shard(self, split: str, shard: ShardInfo) -> None:
        """Check one shard's bytes, schema and rows."""
        path = self.dataset.shard_path(shard)
        try:
            size = file_size(path)
        except OSError:
            self.error(shard.path, None, "The file is missing, but dataset.json lists it.", _RESTORE)
            return
        if size != shard.bytes:
            what = f"It has {size:,} bytes, but dataset.json declares {shard.bytes:,}: truncated or changed."
            self.error(shard.path, None, what, _RESTORE)
        else:
            self.changed(shard.path, path, shard.sha256)
        try:
            with BoundedParquet(pa.BufferReader(shard_content(path, size)), path) as file:
                table = file.read()
            table.column_names  # noqa: B018  # decodes the names
        except OversizedError as error:
            self.error(shard.path, None, error.what, _RESTORE)
            return
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # UnicodeDecodeError: column names
            self.error(shard.path, None, f"It is not a readable Parquet file ({first_line(error)}).", _RESTORE)
            return
        self.rows += table.num_rows
        if table.num_rows != shard.rows:
            self.error(shard.path, None, f"It has {table.num_rows} rows, but dataset.json declares {shard.rows}.")
        if not table.num_rows:
            return
        usable = self._usable_columns(shard.path, table)
        if all(name in usable for name in META_COLUMNS):
            window = to_window([table], {})
            self._words_and_labels(split, shard.path, window)
            self._ids(split, shard.path, window)
        self._features(shard, table, usable)

    def _usable_columns(self, file: str, table: pa.Table) -> set[str]:
        """Check types and nulls of the columns, and return the valid ones."""
        usable = set()
        for wanted in arrow_schema(self.manifest.features):
            name = wanted.name
            if name not in table.column_names:
                self.error(file, name, f"The column is missing (columns: {', '.join(table.column_names)}).")
                continue
            column = table.column(name)
            if (fault := column_fault(column, wanted)) is not None:
                what, row = fault
                self.error(file, name, f"It {what}.", row=row)
            else:
                usable.add(name)
        known = {*META_COLUMNS, *self.manifest.features}
        for name in table.column_names:
            if name not in known:
                self.warning(file, name, "dataset.json does not declare this column; nothing reads it.", _AGAIN)
        return usable

    def _words_and_labels(self, split: str, file: str, window: Window) -> None:
        low, high = self.manifest.label.low, self.manifest.label.high
        is_number = np.isfinite(window.label)
        in_range = (window.label >= np.float32(low)) & (window.label <= np.float32(high))
        counted = np.array([count_words(text) for text in window.text], np.int32)
        has_words = counted > 0
        self._rows(file, "label", ~is_number, "It is NaN or infinity", "Fix the labels and recreate the data set.")
        if self.manifest.label.is_class:
            whole = np.floor(window.label) == window.label
            self._rows(file, "label", is_number & ~whole, "It is not an integer class", _AGAIN)
            valid = window.label[is_number & whole & in_range].astype(np.int64)
            self.clips_of_class.setdefault(split, Counter()).update(valid.tolist())
        outside = f"It is outside [{low:g}, {high:g}]"
        self._rows(file, "label", is_number & ~in_range, outside, "Fix the labels, or ingest with --label-range.")
        advice = "Give the clips a text, or leave them out, and recreate the data set."
        if not self.manifest.label.is_class:
            self._rows(file, "text", ~has_words, "It is empty", advice)
        wrong_count = (has_words | self.manifest.label.is_class) & (counted != window.num_words)
        self._rows(file, "num_words", wrong_count, "It is not the number of words in text", _AGAIN)

    def _ids(self, split: str, file: str, window: Window) -> None:
        self._rows(file, "clip_id", np.array([not name for name in window.clip_id], bool), "It is empty", _AGAIN)
        repeated: list[tuple[int, str]] = []
        for row, (clip, video) in enumerate(zip(window.clip_id, window.video_id, strict=True)):
            if clip in self.place_of_clip:
                repeated.append((row, f"{clip!r} (also {self.place_of_clip[clip]})"))
            elif clip:
                self.place_of_clip[clip] = f"{file} row {row}"
            self.clips_of_video.setdefault(video, Counter())[split] += 1
        for row_of_text in zip(
            window.clip_id, window.text, window.num_words.tolist(), window.label.tolist(), strict=True
        ):
            self.texts.add(split, *row_of_text)
        if repeated:
            what = f"{counted(len(repeated), 'id')} of another row: {_examples([text for _, text in repeated])}."
            advice = "Keep each clip once and recreate the data set: test clips in train invalidate the test score."
            self.error(file, "clip_id", what, advice, row=repeated[0][0])

    def _features(self, shard: ShardInfo, table: pa.Table, usable: set[str]) -> None:
        present: dict[str, Array] = {}
        for name, spec in self.manifest.features.items():
            if name in usable:
                present[name] = ~table.column(name).is_null().to_numpy()
                bad = rows_not_finite(table.column(name), spec)
                advice = "Fix the features and recreate the data set, or leave them out."
                self._rows(shard.path, name, bad, "It has NaN or infinity", advice)
        if set(present) != set(self.manifest.features):
            return
        lacking = Counter(
            "+".join(sorted(name for name, has in present.items() if not has[row])) for row in range(table.num_rows)
        )
        del lacking[""]
        if dict(lacking) != shard.missing:
            what = f"The rows that lack features are {dict(lacking)}, but dataset.json declares {shard.missing}."
            self.error(shard.path, None, what)

    def _rows(self, file: str, name: str, bad: Array, what: str, advice: str) -> None:
        """Report one finding for all rows with the same problem."""
        rows = np.flatnonzero(bad)
        if len(rows):
            what = f"{what} in {counted(len(rows), 'row')}."
            self.error(file, name, what, advice, row=int(rows[0]))

    def videos_in_several_splits(self) -> None:
        """Warn about videos in two splits, which let a model know a test clip's speaker."""
        for one, other in combinations(SPLITS, 2):
            shared = sorted(v for v, counts in self.clips_of_video.items() if counts[one] and counts[other])
            if shared:
                what = f"{counted(len(shared), 'video')} in both {one} and {other}: {_examples(shared)}."
                advice = "Split by whole videos, or consider whether scores may benefit from known speakers."
                self.warning(f"{one}/ and {other}/", "video_id", what, advice)
        self._families_in_several_splits()

    def _families_in_several_splits(self) -> None:
        """Warn if each clip counts as a separate video although the ids look like numbered clips of the same videos."""
        alone = [video for video, counts in self.clips_of_video.items() if counts.total() == 1]
        if len(alone) <= self.rows / 2:
            return
        families = numbered_families(alone)
        splits_of = {
            name: {split for video in videos for split in self.clips_of_video[video]}
            for name, videos in families.items()
        }
        for one, other in combinations(SPLITS, 2):
            shared = sorted(name for name, splits in splits_of.items() if {one, other} <= splits)
            if len(shared) > 1:  # a single one is the name of a file or of its train split
                what = (
                    f"Each clip counts as a separate video, but {counted(len(shared), 'group')} of ids look numbered "
                    f"and are in both {one} and {other}: {_examples([f'{name}…' for name in shared])}."
                )
                advice = "If the groups are videos, recreate the data set with their column (--video-column)."
                self.warning(f"{one}/ and {other}/", "video_id", what, advice)

    def classes(self) -> None:
        """Report classes of which nothing can be learned, and those that are not evaluated."""
        label, counts = self.manifest.label, self.clips_of_class

        def named(classes: list[int]) -> str:
            return listed([class_name(label.classes, one) for one in classes])

        for split, what in (("valid", "used for choosing checkpoints"), ("test", "part of the test score")):
            if unknown := unknown_classes(counts, split):
                have = f"{counted_classes(len(unknown))} clips in {split} but none in train: {named(unknown)}."
                advice = "Nothing can be learned about such a class: add train clips of it, or leave its clips out."
                self.error(f"{split}/", "label", have, advice)
            if unseen := unseen_classes(counts, split):
                have = f"{counted_classes(len(unseen))} clips in train but none in {split}: {named(unseen)}."
                advice = f"Such a class is not {what}. Split the clips so that every class is in every split."
                self.warning(f"{split}/", "label", have, advice)
        used = {one for each in counts.values() for one in each}
        if len(label.classes) == label.high + 1 and (absent := set(range(len(label.classes))) - used):
            have = f"{counted_classes(len(absent))} no clips in any split: {named(sorted(absent))}."
            self.warning(MANIFEST, "label", have, "Recreate the data set with the right --classes and --class-names.")

    def prompts(self) -> None:
        """Check the frozen prompt embeddings, if there should be any."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        file, classes = self.dataset.prompts_path.name, self.manifest.num_classes_prompts
        if not classes:
            if self.dataset.prompts_path.exists():
                self.warning(file, None, "dataset.json declares no prompts; nothing reads this file.", _AGAIN)
            return
        if not self.dataset.prompts_path.is_file():
            self.error(file, None, f"The file is missing, but dataset.json declares {classes} prompts.", _RESTORE)
            return
        try:
            with local_copy(self.dataset.prompts_path) as path:
                tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            self.error(file, None, f"It is not a readable safetensors file ({error}).", _RESTORE)
            return
        prompts, declared = tensors.get("prompts"), self.manifest.prompts_sha256
        if classes != (expected := self.manifest.label.num_prompts):
            what = f"dataset.json declares {classes} prompts, but these labels need {expected:,}."
            self.error(file, "prompts", what)
        if prompts is None:
            self.error(file, "prompts", f"The tensor is missing (tensors: {', '.join(tensors)}).")
        elif prompts.ndim != 2 or len(prompts) != classes:
            self.error(file, "prompts", f"Its shape is {list(prompts.shape)}, expected [{classes}, D].")
        elif not np.isfinite(prompts).all():
            self.error(file, "prompts", "It has NaN or infinity.")
        elif declared is not None:
            self.changed(file, self.dataset.prompts_path, declared)

    def records(self) -> None:
        """Check the additional files that provenance lists: what was read, and what was left out."""
        for name, declared in self.manifest.records.items():
            path = self.dataset.root / name
            if not path.is_file():
                self.error(name, None, "The file is missing, but dataset.json lists it.", _RESTORE)
            else:
                self.changed(name, path, declared)

    def unlisted_files(self) -> None:
        """Warn about shards that nothing reads."""
        found = {name for name in files_below(self.dataset.root) if name.endswith(".parquet")}
        for path in sorted(found - listed_parquet(self.dataset)):
            self.warning(path, None, "dataset.json does not list this shard; nothing reads it.", "Remove it.")


def _examples(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_EXAMPLES:,} more" if len(names) > _MAX_EXAMPLES else ""
    return ", ".join(names[:_MAX_EXAMPLES]) + more

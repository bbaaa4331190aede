"""Several data sets read as one: the shards of an epoch, and the checks that the data sets fit together."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.config import Config, DataConfig
from vadv_dist.data.context import readings
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.lanes import choose_num_lanes
from vadv_dist.data.mixture import quotas
from vadv_dist.data.plan import EpochPlan, Mix, ShardTable, usable_rows
from vadv_dist.data.prompts import require_same_prompts
from vadv_dist.data.reading import ShardReader, read_columns
from vadv_dist.data.schema import FeatureSpec, IntArray, LabelSpec, Window
from vadv_dist.data.shard_list import ShardInfo, SourceShards
from vadv_dist.data.share import TrainShare
from vadv_dist.data.task_fit import require_data_of_task
from vadv_dist.errors import UserError


@dataclass(frozen=True)
class Sources:
    """The data sets of a run, checked to fit together.

    Attributes:
        datasets: in the order of the configuration.
        needed: features that the model reads.
        names: name of each data set; None for a single one without a configured name, whose clips' `source` is used.
        missing: `drop`, `mask` or `error` (see `DataConfig.missing`).
        share: the share of the training clips that is used; None uses all.
        context: maximum number of utterances before a clip that its text includes (`data/context.py`).
    """

    datasets: list[Dataset]
    needed: tuple[str, ...]
    names: tuple[str | None, ...]
    missing: str = "error"
    share: TrainShare | None = None
    context: int = 0

    @classmethod
    def open(cls, config: Config) -> "Sources":
        """Open the configured data sets; only manifests are read.

        Raises:
            UserError: none is configured, one is not a data set, has labels of another task, lacks a needed feature, or
                does not fit the first.
        """
        if not config.data.sources:
            raise UserError(
                "data.sources is empty. Add a data set: `sources: [{uri: data/made}]` in the config file, or "
                "--data.sources='[{uri: data/made}]'."
            )
        configured = config.data.sources
        datasets = [Dataset.open(source.uri) for source in configured]
        several = len(configured) > 1
        share = TrainShare(config.data.train_share, config.data.train_share_seed)
        sources = cls(
            datasets,
            config.needed_features,
            tuple(s.title if several else s.name for s in configured),
            config.data.missing,
            share if share.share < 1 else None,
            0 if config.text_student is None else config.text_student.context,
        )
        for dataset in datasets:
            require_data_of_task(dataset, config)
            ShardReader(dataset, sources.needed)
        for first, other in combinations(datasets, 2):
            for _, what, advice in misfits(first, other, sources.needed):
                raise UserError(f"{what} {advice}")
        if several and config.has_teacher and config.teacher.prompting != "none":
            require_same_prompts(datasets)
        return sources

    @property
    def label(self) -> LabelSpec:
        """The label range, shared by all sources."""
        return self.datasets[0].manifest.label

    def label_words(self) -> dict[str, float]:
        """Numbers by the words that stood for them in the files of the sources; empty unless all sources agree."""
        maps = [_label_map(dataset.manifest.provenance) for dataset in self.datasets]
        return maps[0] if not self.label.is_class and all(each == maps[0] for each in maps) else {}

    def num_rows(self, split: str) -> int:
        """Rows of a split over all sources: what `row_id` counts.

        Rows that lack a feature are included, unless only a share of the split is used.
        """
        if split == "train" and self.share is not None:
            return sum(self.split(split).rows_per_source)
        return sum(dataset.manifest.rows(split) for dataset in self.datasets)

    def label_statistic(self, split: str, name: str) -> list[tuple[int, float]]:
        """Number of rows of a split and a label statistic, per source; empty if a source does not have it."""
        return self._statistic(split, name)

    def _statistic(self, split: str, name: str) -> list[tuple[int, Any]]:
        manifests = [dataset.manifest for dataset in self.datasets]
        found = [(m.rows(split), getattr(m.statistics.get(split), name, None)) for m in manifests]
        return [] if any(value is None for _, value in found) else found

    def train_label(self, name: str) -> float | None:
        """A statistic of the training labels, averaged over the rows of all sources; None if unknown.

        Args:
            name: `label_mean` or `label_median`.
        """
        if self.share is not None:
            compute = np.median if name == "label_median" else np.mean
            found = [(len(labels), float(compute(labels))) for labels in self.split("train").labels()]
        else:
            found = self.label_statistic("train", name)
        rows = sum(rows for rows, _ in found)
        return sum(rows * value for rows, value in found) / rows if rows else None

    def train_class_counts(self) -> dict[int, int] | None:
        """Number of training clips of each class that has some, over all sources; None if unknown."""
        if self.share is not None:
            labels = np.concatenate(list(self.split("train").labels())).astype(int)
            return dict(enumerate(np.bincount(labels).tolist()))
        found = [histogram.counts for _, histogram in self._statistic("train", "label_histogram")]
        return dict(enumerate(np.sum(found, axis=0).tolist())) if found else None

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """Shapes of the features that the model reads."""
        return {name: self.datasets[0].manifest.features[name] for name in self.needed}

    def split(self, name: str, *, missing: str | None = None) -> "SplitShards":
        """Return a split's shards over all sources.

        Args:
            name: train, valid or test.
            missing: replaces the configured value.
        Raises:
            UserError: a source has no such split, its share contains no clip, clips lack features and `missing` is
                `error`, or the text includes utterances of the video and their order is unknown.
        """
        missing = missing or self.missing
        shards = SourceShards(tuple(dataset.split(name) for dataset in self.datasets))
        lacking = int(shards.lacking(self.needed).sum())
        if lacking and missing == "error":
            raise UserError(
                f"{lacking} clips of the {name!r} split lack {' or '.join(self.needed)} features. Set data.missing to "
                "`drop` (leave them out) or `mask` (keep them, without the terms that need what they lack)."
            )
        share = self.share if name == "train" else None
        split = SplitShards(self, name, shards, dropped=lacking if missing == "drop" else 0, share=share)
        if share is not None:
            _require_clips_of_each_source(split, share)
        if self.context:
            split.check_order()
        return split


def _require_clips_of_each_source(split: "SplitShards", share: TrainShare) -> None:
    for number, dataset in enumerate(split.sources.datasets):
        if not split.rows_per_source[number]:
            in_use = sum(shard.rows - shard.rows_lacking(split.required) for n, shard in split.shards if n == number)
            raise UserError(
                f"data.train_share is {share.share:g}, but {dataset.root} has {in_use:,} train clips in use, so no "
                f"clip is left. Set data.train_share to {1 / max(in_use, 1):.2g} or more."
            )


def misfits(first: Dataset, other: Dataset, features: Iterable[str]) -> Iterator[tuple[str | None, str, str]]:
    """Why two data sets cannot be sources of one run: the field, what is wrong, and what to do.

    Args:
        features: names of features that both have and the run reads.
    """
    if first.manifest.fingerprint == other.manifest.fingerprint:
        yield (
            None,
            f"{first.root} and {other.root} contain the same clips (their fingerprints are equal).",
            "List the data set once in data.sources; to read it more often set data.mixing: repeats and its weight.",
        )
    mine, theirs = first.manifest.label, other.manifest.label
    if theirs.kind != mine.kind:
        yield (
            "label",
            f"{other.root} has {theirs.kind} labels but {first.root} has {mine.kind} labels: the sources of a run must "
            "share their kind of label.",
            "Train on each separately.",
        )
    elif mine.is_class and theirs.high != mine.high:
        yield (
            "label",
            f"{other.root} has {theirs.num_classes:,} classes, {first.root} {mine.num_classes:,}: the sources of a run "
            "must share their classes.",
            "Ingest one again with the other's --classes.",
        )
    elif mine.is_class and theirs.classes and mine.classes and theirs.classes != mine.classes:
        one = next(i for i, pair in enumerate(zip(mine.classes, theirs.classes, strict=False)) if len(set(pair)) > 1)
        yield (
            "label",
            f"Class {one} is {theirs.classes[one]!r} in {other.root} but {mine.classes[one]!r} in {first.root}: the "
            "sources of a run must share their classes.",
            "Ingest one again with the other's order of classes (--class-names).",
        )
    elif (theirs.low, theirs.high) != (mine.low, mine.high):
        yield (
            "label",
            f"{other.root} has labels from {theirs.low:g} to {theirs.high:g}, {first.root} from {mine.low:g} to "
            f"{mine.high:g}: the sources of a run must share their label range.",
            "Ingest one again with the other's range (--label-range).",
        )
    elif theirs.positive_from != mine.positive_from:
        yield (
            "label",
            f"In {other.root} negative and positive labels meet at {theirs.positive_from:g}, in {first.root} at "
            f"{mine.positive_from:g}: the sources of a run must share their threshold.",
            "Ingest one again with the other's (--threshold).",
        )
    for name in features:
        a, b = first.manifest.features[name], other.manifest.features[name]
        if a != b:
            yield (
                name,
                f"{name} has shape {list(b.shape)} ({b.dtype}) in {other.root} but {list(a.shape)} ({a.dtype}) in "
                f"{first.root}: the sources of a run must share feature shapes.",
                "Create one again to match the other."
                if mine.is_class
                else f"Create one again to match the other, or set teacher.use_{name}: false.",
            )


@dataclass(frozen=True)
class SplitShards:
    """One split of all sources.

    Attributes:
        shards: (index of the source, shard) of each shard, in a fixed order.
        dropped: number of clips that lack a needed feature and are left out.
        share: the share of the clips that is used; None uses all.
    """

    sources: Sources
    name: str
    shards: SourceShards
    dropped: int
    share: TrainShare | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Features without which a row is dropped."""
        return self.sources.needed if self.dropped else ()

    @cached_property
    def is_complete(self) -> bool:
        """Whether every row in use has every feature that the model reads."""
        return bool(self.required) or not self.shards.lacking(self.sources.needed).any()

    @cached_property
    def table(self) -> ShardTable:
        """Rows in use and bytes of each shard."""
        rows = self._complete_rows
        if self.share is not None:
            rows = np.concatenate([self.share.rows_taken(rows[first:end]) for first, end in self._source_bounds])
        return ShardTable(rows, self.shards.bytes)

    @cached_property
    def _complete_rows(self) -> IntArray:
        """Rows of each shard that are not dropped for a missing feature."""
        return self.shards.rows - self.shards.lacking(self.required)

    @cached_property
    def _source_bounds(self) -> list[tuple[int, int]]:
        """The range of each source's shards."""
        ends = np.searchsorted(self._source_of_shard, np.arange(len(self.sources.datasets) + 1))
        return list(pairwise(ends.tolist()))

    def rows_in_use(self, window: Window, ids: Sequence[int]) -> IntArray:
        """Positions of a window's rows in use, ascending.

        Args:
            window: holds some shards.
            ids: indices of these shards, in its order.
        """
        rows = usable_rows(window, self.required)
        if self.share is None:
            return rows
        ends = np.searchsorted(rows, np.cumsum([shard.rows for _, shard in self.take(ids)]))
        parts = np.split(rows, ends[:-1])
        return np.concatenate([part[self._taken(i, len(part))] for i, part in zip(ids, parts, strict=True)])

    def _taken(self, i: int, complete: int) -> IntArray:
        """Positions of a shard's rows in use among its complete rows."""
        assert self.share is not None, "only for a share"
        first = self._source_bounds[self.shards[i][0]][0]
        return self.share.rows_of(i - first, complete, int(self.table.rows[i]))

    def labels(self) -> list[npt.NDArray[np.float32]]:
        """Labels in use of each source; reads the column of labels, and features if clips that lack one are dropped.

        Raises:
            UserError: a shard cannot be read.
        """
        found: list[list[npt.NDArray[np.float32]]] = [[] for _ in self.sources.datasets]
        for i, (number, shard) in enumerate(self.shards):
            lacking = [name for name in self.required if shard.rows_lacking((name,))]
            table = read_columns(self.sources.datasets[number], shard, ["label", *lacking])
            for name in lacking:
                table = table.filter(table.column(name).is_valid())
            label = table.column("label").to_numpy()
            found[number].append(label if self.share is None else label[self._taken(i, len(label))])
        return [np.concatenate(parts) for parts in found]

    @cached_property
    def rows_per_source(self) -> list[int]:
        """Rows in use of each source."""
        counts = np.bincount(self._source_of_shard, self.table.rows, minlength=len(self.sources.datasets))
        return [int(n) for n in counts]

    @cached_property
    def _source_of_shard(self) -> IntArray:
        return self.shards.source

    def quotas(self, config: DataConfig) -> list[int]:
        """Number of rows that a training epoch takes from each source.

        Raises:
            UserError: a source has no rows in use, or its share of an epoch is less than one row.
        """
        rows = self.rows_per_source
        if config.mixing == "proportional":
            return rows
        for number, dataset in enumerate(self.sources.datasets):
            if not rows[number]:
                raise UserError(
                    f"{dataset.root} has no {self.name} clips in use (data.missing drops them), so there is nothing to "
                    "mix. Remove it from data.sources, or set data.missing: mask."
                )
        wanted = quotas(rows, config.mixing, [source.weight for source in config.sources], config.temperature)
        if 0 in wanted:
            number = wanted.index(0)
            raise UserError(
                f"{self.sources.datasets[number].root} would contribute no clip to an epoch of {sum(rows)}: its share "
                "is too small. Raise its weight in data.sources, or remove it."
            )
        return wanted

    def source_names(self, ids: Sequence[int]) -> list[str] | None:
        """Name of the source of each row of some shards, [R]; None to use the clips' own."""
        if self.sources.names == (None,):
            return None
        return [str(self.sources.names[number]) for number, shard in self.take(ids) for _ in range(shard.rows)]

    def row_ids(self, ids: Sequence[int]) -> IntArray:
        """Index in the split of each row of some shards, [R], whatever share of it is used."""
        parts = [np.arange(shard.rows) + self._first_row[i] for i, (_, shard) in zip(ids, self.take(ids), strict=True)]
        return np.concatenate(parts).astype(np.int64)

    def row_ids_in_use(self, window: Window, ids: Sequence[int]) -> IntArray:
        """Index of each row of a window among the rows in use of the split, [R]; -1 for rows that are not in use."""
        first = np.concatenate([[0], np.cumsum(self.table.rows)])
        row_id = np.full(len(window), -1, np.int64)
        row_id[self.rows_in_use(window, ids)] = np.concatenate([np.arange(first[i], first[i + 1]) for i in ids])
        return row_id

    @cached_property
    def _first_row(self) -> IntArray:
        return np.concatenate([[0], np.cumsum(self.shards.rows)])

    def texts(self) -> Iterator[str]:
        """Read all texts, including those of clips that are dropped for a missing feature; with context, all readings.

        Raises:
            UserError: a shard cannot be read.
        """
        if self.sources.context:
            yield from self._readings
            return
        for dataset in self.sources.datasets:
            yield from dataset.column(self.name, "text")

    def readings(self, ids: Sequence[int]) -> list[str]:
        """Readings of the clips of some shards, [R]; only with context."""
        first = self._first_row
        return [text for i in ids for text in self._readings[first[i] : first[i + 1]]]

    def check_order(self) -> None:
        """Read the words and ids of the split.

        Raises:
            UserError: the order of the clips in their videos is unknown.
        """
        self._readings  # noqa: B018  # read once and kept

    @cached_property
    def _readings(self) -> list[str]:
        """What the student reads of each clip; words and ids of the whole split, because a window holds only a part."""
        found: list[str] = []
        for dataset in self.sources.datasets:
            clips, videos, texts = (list(dataset.column(self.name, name)) for name in ("clip_id", "video_id", "text"))
            where = f"{dataset.root} ({self.name})"
            found += readings(clips, videos, texts, context=self.sources.context, where=where)
        return found

    def absolute(self) -> "SplitShards":
        """The same split with absolute paths, for processes with another working directory."""
        datasets = [replace(dataset, root=dataset.root.resolve()) for dataset in self.sources.datasets]
        return replace(self, sources=replace(self.sources, datasets=datasets))

    def readers(self) -> list[ShardReader]:
        """One reader per source."""
        return [ShardReader(dataset, self.sources.needed) for dataset in self.sources.datasets]

    def plan(
        self,
        config: DataConfig,
        *,
        seed: int,
        epoch: int,
        shuffle: bool = True,
        batch_size: int | None = None,
        num_lanes: int | None = None,
    ) -> EpochPlan:
        """Plan an epoch over the split; if it is shuffled, as in training, sources are mixed according to `config`.

        `num_lanes` is 1 for a run begun before there were lanes, otherwise `self.num_lanes`, the default.
        """
        batch_size = batch_size or config.batch_size
        mix = None
        if shuffle and config.mixing != "proportional":
            wanted = self.quotas(config)
            if wanted != self.rows_per_source:
                mix = Mix(self._source_of_shard, tuple(wanted))
        return EpochPlan.build(
            self.table,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            window_bytes=config.window_bytes,
            bucket_batches=config.bucket_batches,
            shuffle=shuffle,
            mix=mix,
            num_lanes=num_lanes or self.num_lanes(config, batch_size),
        )

    def num_lanes(self, config: DataConfig, batch_size: int | None = None) -> int:
        """Number of lanes of a plan, the same in every epoch."""
        used = self.table.bytes[self.table.rows > 0]
        batch_size = batch_size or config.batch_size
        return choose_num_lanes(used, batch_size=batch_size, window_bytes=config.window_bytes)

    def take(self, ids: Sequence[int]) -> list[tuple[int, ShardInfo]]:
        """Select shards by index."""
        return [self.shards[i] for i in ids]


def _label_map(provenance: Mapping[str, Any]) -> dict[str, float]:
    """The words of `--label-map` or `clips.label_map`; empty if there is none, or something else."""
    options = provenance.get("options")
    options = options if isinstance(options, dict) else {}
    of_clips = options.get("clips")
    found = options.get("label_map") or (of_clips.get("label_map") if isinstance(of_clips, dict) else None)
    try:
        words = {str(word): float(number) for word, number in found.items()} if isinstance(found, dict) else {}
    except (TypeError, ValueError):
        return {}
    return words if all(map(math.isfinite, words.values())) else {}

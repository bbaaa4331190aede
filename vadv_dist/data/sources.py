"""Several data sets read as one: which shards an epoch has, and the checks that make them fit together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vadv_dist.config.sections import Config, DataConfig
from vadv_dist.data.plan import EpochPlan, ShardTable
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.schema import FeatureSpec, LabelSpec
from vadv_dist.data.shards import Dataset, ShardInfo
from vadv_dist.errors import UserError


@dataclass(frozen=True)
class Sources:
    """The data sets of a run, checked to fit together."""

    datasets: list[Dataset]
    needed: tuple[str, ...]

    @classmethod
    def open(cls, config: Config) -> "Sources":
        """Open the data sets that a configuration names; only manifests are read.

        Raises:
            UserError: none is named, one is no data set, lacks what the model reads, or differs from the first.
        """
        if not config.data.sources:
            raise UserError(
                "data.sources is empty. Name a data set: `sources: [{uri: data/made}]` in the config file, or "
                "--data.sources='[{uri: data/made}]'."
            )
        datasets = [Dataset.open(source.uri) for source in config.data.sources]
        sources = cls(datasets, config.needed_features)
        for dataset in datasets:
            ShardReader(dataset, sources.needed)
            sources._require_alike(dataset)
        return sources

    @property
    def label(self) -> LabelSpec:
        """Label range that all sources share."""
        return self.datasets[0].manifest.label

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """Shapes of the features that the model reads."""
        return {name: self.datasets[0].manifest.features[name] for name in self.needed}

    def split(self, name: str, *, missing: str) -> "SplitShards":
        """Return a split's shards over all sources.

        Args:
            name: train, valid or test.
            missing: `drop`, `mask` or `error` (see `DataConfig.missing`).
        Raises:
            UserError: a source has no such split, or clips lack features and `missing` is `error`.
        """
        shards = [(number, shard) for number, dataset in enumerate(self.datasets) for shard in dataset.split(name)]
        lacking = sum(shard.rows_lacking(self.needed) for _, shard in shards)
        if lacking and missing == "error":
            raise UserError(
                f"{lacking} clips of the {name!r} split lack {' or '.join(self.needed)} features. Set data.missing to "
                "`drop` (leave them out) or `mask` (train the student on them, mask what the teacher misses)."
            )
        return SplitShards(self, name, shards, dropped=lacking if missing == "drop" else 0)

    def _require_alike(self, other: Dataset) -> None:
        first = self.datasets[0]
        if other.manifest.label != first.manifest.label:
            raise UserError(
                f"{other.root} has labels {other.manifest.label}, {first.root} has {first.manifest.label}: "
                "sources of one run must share their label range."
            )
        for name in self.needed:
            a, b = first.manifest.features[name], other.manifest.features[name]
            if a != b:
                raise UserError(
                    f"{name} has shape {list(b.shape)} ({b.dtype}) in {other.root} but {list(a.shape)} ({a.dtype}) in "
                    f"{first.root}: sources of one run must share feature shapes."
                )


@dataclass(frozen=True)
class SplitShards:
    """One split of all sources: (number of the source, shard) of each shard, in a fixed order."""

    sources: Sources
    name: str
    shards: list[tuple[int, ShardInfo]]
    dropped: int

    @property
    def drops_missing(self) -> bool:
        """Whether rows that lack a needed feature are left out."""
        return self.dropped > 0

    @property
    def table(self) -> ShardTable:
        """Rows in use and bytes of each shard."""
        needed = self.sources.needed if self.drops_missing else ()
        return ShardTable.of(
            [shard.rows - shard.rows_lacking(needed) for _, shard in self.shards],
            [shard.bytes for _, shard in self.shards],
        )

    def absolute(self) -> "SplitShards":
        """The same split with absolute paths, for processes that stand in another folder."""
        datasets = [replace(dataset, root=dataset.root.resolve()) for dataset in self.sources.datasets]
        return replace(self, sources=replace(self.sources, datasets=datasets))

    def readers(self) -> list[ShardReader]:
        """A reader per source."""
        return [ShardReader(dataset, self.sources.needed) for dataset in self.sources.datasets]

    def plan(
        self,
        config: DataConfig,
        *,
        seed: int,
        epoch: int,
        shuffle: bool = True,
        batch_size: int | None = None,
    ) -> EpochPlan:
        """Plan an epoch over the split."""
        return EpochPlan.build(
            self.table,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size or config.batch_size,
            window_bytes=config.window_bytes,
            bucket_batches=config.bucket_batches,
            shuffle=shuffle,
        )

    def take(self, ids: Sequence[int]) -> list[tuple[int, ShardInfo]]:
        """Return some shards by their numbers."""
        return [self.shards[i] for i in ids]

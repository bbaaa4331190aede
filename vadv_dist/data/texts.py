"""The texts of a data set without its features."""

from collections.abc import Iterator

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import read_columns
from vadv_dist.data.sources import SplitShards


def texts_of(split: SplitShards) -> Iterator[str]:
    """Read all texts of a split, including clips that are dropped for a missing feature.

    Raises:
        UserError: a shard cannot be read.
    """
    for number, shard in split.shards:
        yield from read_columns(split.sources.datasets[number], shard, ["text"]).column("text").to_pylist()


def texts_of_dataset(dataset: Dataset) -> dict[str, tuple[list[str], list[int]]]:
    """Read texts and word counts of a data set, by split.

    Raises:
        UserError: a shard cannot be read.
    """
    found = {}
    for split, shards in dataset.manifest.splits.items():
        tables = [read_columns(dataset, shard, ["text", "num_words"]) for shard in shards]
        columns = [[v for table in tables for v in table.column(name).to_pylist()] for name in ("text", "num_words")]
        found[split] = (columns[0], columns[1])
    return found

"""The shards of a split, held as columns: a million take 150 MB instead of a gigabyte, and sums are one operation.

Shapes: S shards, K different sets of missing features.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator

from vadv_dist.data.schema import Count, IntArray, Text


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise ValueError(f"{path!r} is outside the data set")
    return path


RelativePath = Annotated[Text, AfterValidator(_inside)]


@dataclass(frozen=True)
class ShardInfo:
    """One shard as the manifest declares it.

    `missing` counts rows by the exact set of features they lack, such as `{"face": 3, "face+visual": 1}`.
    """

    path: RelativePath
    rows: Count
    bytes: Count
    sha256: Text
    missing: dict[str, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rows > self.bytes:
            raise ValueError(f"{self.path} has {self.rows:,} rows in {self.bytes:,} bytes")

    def rows_lacking(self, features: Iterable[str]) -> int:
        """Rows that lack at least one of `features`."""
        return _rows_lacking(self.missing, set(features))


def _rows_lacking(missing: dict[str, int], features: set[str]) -> int:
    return sum(count for names, count in missing.items() if features & set(names.split("+")))


@dataclass(frozen=True, eq=False)
class ShardList(Sequence[ShardInfo]):
    """Shards in a fixed order.

    Attributes:
        paths, sha256: path and hash of each shard, [S].
        rows, bytes: sizes of each shard, [S].
        kinds: the different values of `ShardInfo.missing`, [K].
        kind: index of each shard's in `kinds`, [S].
    """

    paths: pa.StringArray
    rows: IntArray
    bytes: IntArray
    sha256: pa.StringArray
    kinds: tuple[dict[str, int], ...]
    kind: IntArray

    @classmethod
    def of(cls, shards: Sequence[ShardInfo]) -> "ShardList":
        """The same shards as columns."""
        if isinstance(shards, cls):
            return shards
        kinds: dict[tuple[tuple[str, int], ...], int] = {}
        kind = [kinds.setdefault(tuple(shard.missing.items()), len(kinds)) for shard in shards]
        return cls(
            pa.array([shard.path for shard in shards], pa.string()),
            np.array([shard.rows for shard in shards], np.int64),
            np.array([shard.bytes for shard in shards], np.int64),
            pa.array([shard.sha256 for shard in shards], pa.string()),
            tuple(map(dict, kinds)),
            np.array(kind, np.int64),
        )

    def lacking(self, features: Iterable[str]) -> IntArray:
        """Rows of each shard that lack at least one of `features`, [S]."""
        wanted = set(features)
        of_kind = np.array([_rows_lacking(missing, wanted) for missing in self.kinds] or [0], np.int64)
        return np.asarray(of_kind[self.kind], np.int64)

    def repeated_paths(self) -> dict[str, int]:
        """How often each path is listed that is listed more than once."""
        counts = pc.value_counts(self.paths)
        counts = counts.filter(pc.greater(counts.field("counts"), 1))
        return {entry["values"]: entry["counts"] for entry in counts.to_pylist()}

    def hashes(self) -> Iterator[tuple[int, str]]:
        """Number of rows and SHA-256 of each shard."""
        return zip(self.rows.tolist(), self.sha256.to_pylist(), strict=True)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> ShardInfo: ...
    @overload
    def __getitem__(self, at: slice) -> list[ShardInfo]: ...
    def __getitem__(self, at: int | slice) -> ShardInfo | list[ShardInfo]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return ShardInfo(
            self.paths[at].as_py(),
            int(self.rows[at]),
            int(self.bytes[at]),
            self.sha256[at].as_py(),
            dict(self.kinds[self.kind[at]]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list


@dataclass(frozen=True)
class SourceShards(Sequence[tuple[int, ShardInfo]]):
    """The shards of a split over several data sets: (index of the data set, shard) of each, ascending.

    Attributes:
        lists: the shards of each data set.
    """

    lists: tuple[ShardList, ...]

    @property
    def source(self) -> IntArray:
        """Index of each shard's data set, [S]."""
        return np.repeat(np.arange(len(self.lists)), [len(shards) for shards in self.lists])

    @property
    def rows(self) -> IntArray:
        """Rows of each shard, [S]."""
        return np.concatenate([shards.rows for shards in self.lists])

    @property
    def bytes(self) -> IntArray:
        """Bytes of each shard, [S]."""
        return np.concatenate([shards.bytes for shards in self.lists])

    def lacking(self, features: Iterable[str]) -> IntArray:
        """Rows of each shard that lack at least one of `features`, [S]."""
        wanted = set(features)
        return np.concatenate([shards.lacking(wanted) for shards in self.lists])

    def __len__(self) -> int:
        return sum(map(len, self.lists))

    @overload
    def __getitem__(self, at: int) -> tuple[int, ShardInfo]: ...
    @overload
    def __getitem__(self, at: slice) -> list[tuple[int, ShardInfo]]: ...
    def __getitem__(self, at: int | slice) -> tuple[int, ShardInfo] | list[tuple[int, ShardInfo]]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if at < 0:
            at += len(self)
        for number, shards in enumerate(self.lists):
            if 0 <= at < len(shards):
                return number, shards[at]
            at -= len(shards)
        raise IndexError(at)

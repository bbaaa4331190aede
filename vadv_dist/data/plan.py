"""Which clips form global batch t of epoch e: a pure function of the seed and the data set.

Shards are permuted, consecutive shards form *windows* of bounded bytes, rows are permuted inside a window, sorted by
length inside groups of batches, cut into global batches, and the batches permuted. Neither the number of workers nor
their speed enters. Building a plan costs O(shards); ordering a window costs O(its rows).

Where sources are mixed other than by their size, `mixture` says how often an epoch reads which rows; a shard that is
read several times stands in several windows, or once in a window whose batches repeat its rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.data.mixture import Reads, epoch_reads, repeated_apart, row_times, spread
from vadv_dist.data.schema import IntArray, Window
from vadv_dist.errors import UserError

# Streams of random numbers that must not meet, each keyed further by (seed, epoch[, window]); `mixture` has more.
_SHARD_STREAM, _ROW_STREAM = 0, 1


@dataclass(frozen=True)
class ShardTable:
    """Sizes of all shards that an epoch reads: rows in use and bytes, each [S]."""

    rows: IntArray
    bytes: IntArray

    @classmethod
    def of(cls, rows: Sequence[int], sizes: Sequence[int]) -> "ShardTable":
        """Build a table from two sequences of equal length."""
        return cls(np.asarray(rows, np.int64), np.asarray(sizes, np.int64))


@dataclass(frozen=True)
class Mix:
    """Sources that an epoch does not read row by row once.

    Attributes:
        source: source of each shard, ascending, [S].
        quotas: rows that an epoch takes from each source.
    """

    source: IntArray
    quotas: tuple[int, ...]


@dataclass(frozen=True)
class PlannedWindow:
    """One window of an epoch.

    Attributes:
        index: its place in the epoch.
        shards: the shards that it holds, ascending: equal sets of shards are equal windows in every epoch.
        rows: rows in use of its shards.
        reads: rows of its batches: `rows`, unless a mixture repeats some and leaves others out.
        first_step: step of the epoch at which its first batch stands.
        num_batches: global batches cut from it, the last of which may be smaller.
    """

    index: int
    shards: tuple[int, ...]
    rows: int
    reads: int
    first_step: int
    num_batches: int


@dataclass(frozen=True)
class EpochPlan:
    """Order of one epoch over some shards.

    A data set smaller than one window is one window whatever the epoch, so it is shuffled perfectly and read once.
    """

    seed: int
    epoch: int
    batch_size: int
    bucket_batches: int
    shuffle: bool
    _shard_rows: IntArray
    _order: IntArray
    _reads: Reads | None
    _window_starts: IntArray
    _window_rows: IntArray
    _first_steps: IntArray

    @classmethod
    def build(
        cls,
        shards: ShardTable,
        *,
        seed: int,
        epoch: int,
        batch_size: int,
        window_bytes: int,
        bucket_batches: int = 16,
        shuffle: bool = True,
        mix: Mix | None = None,
    ) -> "EpochPlan":
        """Plan an epoch.

        Args:
            shards: rows in use and bytes of each shard.
            seed, epoch: decide the order.
            batch_size: rows of a global batch.
            window_bytes: bound on the bytes of a window's shards; a shard larger than that is a window of its own.
            bucket_batches: rows are sorted by length within groups of this many batches.
            shuffle: False keeps shards and batches in order (validation); rows are still sorted by length.
            mix: how much of each source the epoch reads; None reads every row once.
        Raises:
            UserError: there is no row to read.
        """
        used = np.flatnonzero(shards.rows > 0)
        if not len(used):
            raise UserError(
                "No clip is left to read. See `vadv data-info` for what the data set holds, and data.missing."
            )
        order, reads = used, None
        num_bytes = int(shards.bytes[used].sum())
        if mix is not None and shuffle:
            reads = _mixed(shards, used, mix, seed=seed, epoch=epoch, windows=-(-num_bytes // window_bytes))
            order = reads.shard
        elif shuffle and num_bytes > window_bytes:
            order = used[np.random.default_rng([_SHARD_STREAM, seed, epoch]).permutation(len(used))]
        one = num_bytes <= window_bytes
        starts = [0] if one else _window_starts(shards.bytes[order], window_bytes)
        window_rows = np.add.reduceat(shards.rows[order] if reads is None else reads.rows, starts)
        batches = -(-window_rows // batch_size)
        first_steps = np.concatenate([[0], np.cumsum(batches)])
        return cls(
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            bucket_batches=bucket_batches,
            shuffle=shuffle,
            _shard_rows=shards.rows,
            _order=order,
            _reads=reads,
            _window_starts=np.asarray([*starts, len(order)], np.int64),
            _window_rows=window_rows,
            _first_steps=first_steps,
        )

    @property
    def num_steps(self) -> int:
        """Global batches of the epoch."""
        return int(self._first_steps[-1])

    @property
    def num_windows(self) -> int:
        """Windows of the epoch."""
        return len(self._window_rows)

    @property
    def num_rows(self) -> int:
        """Rows of the epoch's batches: each row once, or as often as a mixture has it."""
        return int(self._window_rows.sum())

    def window(self, index: int) -> PlannedWindow:
        """Return one window of the epoch."""
        shards = np.unique(self._order[self._window_starts[index] : self._window_starts[index + 1]])
        first, following = self._first_steps[index], self._first_steps[index + 1]
        return PlannedWindow(
            index=index,
            shards=tuple(int(s) for s in shards),
            rows=int(self._shard_rows[shards].sum()),
            reads=int(self._window_rows[index]),
            first_step=int(first),
            num_batches=int(following - first),
        )

    def window_of_step(self, step: int) -> PlannedWindow:
        """Return the window that holds a step of the epoch."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of an epoch of {self.num_steps}")
        return self.window(int(np.searchsorted(self._first_steps, step, side="right")) - 1)

    def batches(self, window: PlannedWindow, rows: IntArray, num_words_R: npt.NDArray[np.int32]) -> list[IntArray]:
        """Order one window's rows into its global batches.

        Args:
            window: which window.
            rows: positions of the rows in use, ascending, [window.rows].
            num_words_R: words of every row of the window, [R].
        Returns:
            `window.num_batches` arrays of row positions; together each of `rows` exactly once, or as often as the
            mixture has it.
        """
        if len(rows) != window.rows:
            raise UserError(
                f"A window has {len(rows)} rows in use, but dataset.json declares {window.rows} "
                f"(shards {window.shards[0]} to {window.shards[-1]}). Run `vadv data-check` on the data set."
            )
        if not self.shuffle:
            by_length = rows[np.argsort(num_words_R[rows], kind="stable")]
            return _cut(by_length, self.batch_size)
        random = np.random.default_rng([_ROW_STREAM, self.seed, self.epoch, window.index])
        if self._reads is None:
            permuted = rows[random.permutation(len(rows))]
        else:
            reads = self._reads.take(slice(self._window_starts[window.index], self._window_starts[window.index + 1]))
            permuted = rows[repeated_apart(row_times(reads, window.shards, self._shard_rows, seed=self.seed), random)]
        group = self.batch_size * self.bucket_batches
        groups = [permuted[i : i + group] for i in range(0, len(permuted), group)]
        if self.bucket_batches > 1:
            groups = [g[np.argsort(num_words_R[g], kind="stable")] for g in groups]
        batches = _cut(np.concatenate(groups), self.batch_size)
        return [batches[i] for i in random.permutation(len(batches))]


def usable_rows(window: Window, needed: Sequence[str]) -> IntArray:
    """Positions of the rows that have every feature of `needed`, ascending."""
    usable = np.ones(len(window), bool)
    for name in needed:
        usable &= window.features[name].present
    return np.flatnonzero(usable)


def rank_slice(batch: IntArray, rank: int, world_size: int, accumulate: int) -> list[IntArray]:
    """Rows of a global batch that one rank runs, as `accumulate` micro-batches of nearly equal size.

    Every rank takes each `world_size`-th row: neighbours are alike in length, so ranks pad alike. Small batches leave
    some micro-batches empty; the collator fills those with a row that counts for nothing.
    """
    return np.array_split(batch[rank::world_size], accumulate)


def _mixed(shards: ShardTable, used: IntArray, mix: Mix, *, seed: int, epoch: int, windows: int) -> Reads:
    """What an epoch of a mixture reads, in order; where one window holds all shards, it is of all in every epoch."""
    reads = epoch_reads(shards.rows, mix.source, mix.quotas, seed=seed, epoch=epoch)
    if windows > 1:
        return spread(reads, mix.source, windows, seed=seed, epoch=epoch)
    none = np.zeros_like(used)
    return Reads.join([reads, Reads(used, none, none, none)])


def _window_starts(sizes: IntArray, window_bytes: int) -> list[int]:
    """Where windows of bounded bytes begin in a sequence of shards; one that is larger is a window of its own."""
    ends = np.cumsum(sizes)
    starts = [0]
    while True:
        before = ends[starts[-1] - 1] if starts[-1] else 0
        following = max(int(np.searchsorted(ends, before + window_bytes, side="right")), starts[-1] + 1)
        if following >= len(sizes):
            return starts
        starts.append(following)


def _cut(rows: IntArray, size: int) -> list[IntArray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]

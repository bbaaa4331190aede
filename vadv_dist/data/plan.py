"""Which clips form global batch t of epoch e: a pure function of the seed and the data set.

Shards are permuted, consecutive shards form *windows* of bounded bytes, rows are permuted inside a window, sorted by
length inside groups of batches, cut into global batches, and the batches permuted. The order does not depend on the
number of workers or their speed. Building a plan costs O(shards); ordering a window costs O(its rows).

If an epoch has several windows, each is divided into *lanes* (`data/lanes.py`): rows are permuted, sorted and cut in
each lane, and every batch takes its share of each, so that a rank reads and orders only the lanes that it takes from.

If the rows of a window do not fill its batches, the batch of its shortest rows is the small one: a device that wants
batches of one shape fills it up at little cost.

If sources are not mixed in proportion to their size, `mixture` decides how often an epoch reads which rows. A shard
that is read several times is in several windows, or once in a window whose batches repeat its rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vadv_dist.data.lanes import Lanes, RankPart
from vadv_dist.data.mixture import Reads, epoch_reads, repeated_apart, row_times, spread
from vadv_dist.data.schema import IntArray, Window, text_lengths
from vadv_dist.errors import UserError

# Distinct random streams, further keyed by (seed, epoch[, window]); `mixture` has more.
_SHARD_STREAM, _ROW_STREAM = 0, 1

_SAMPLE_BATCHES = 1000


@dataclass(frozen=True)
class ShardTable:
    """Sizes of all shards that an epoch reads: rows in use and bytes, each [S]."""

    rows: IntArray
    bytes: IntArray


@dataclass(frozen=True)
class Mix:
    """A mixture of sources in which an epoch does not read every row exactly once.

    Attributes:
        source: source of each shard, ascending, [S].
        quotas: rows that an epoch takes from each source.
    """

    source: IntArray
    quotas: tuple[int, ...]


@dataclass(frozen=True)
class PlannedWindow:
    """One window of an epoch, as far as a rank reads it.

    Attributes:
        index: position in the epoch.
        shards: indices of the shards that the rank reads, ascending, so that equal sets of shards are equal windows in
            every epoch.
        rows: rows in use of these shards.
        reads: rows of the window's batches on all ranks: those in use, unless a mixture repeats some and skips others.
        first_step: step of the epoch of its first batch.
        num_batches: number of global batches; one of them may be smaller.
        part: what the rank takes of the window's lanes; None if there is one lane, which every rank reads.
    """

    index: int
    shards: tuple[int, ...]
    rows: int
    reads: int
    first_step: int
    num_batches: int
    part: RankPart | None = None


@dataclass(frozen=True)
class EpochPlan:
    """Order of one epoch over some shards.

    A data set smaller than one window is the same single window in every epoch, so it is fully shuffled and read once.
    """

    seed: int
    epoch: int
    batch_size: int
    bucket_batches: int
    shuffle: bool
    num_lanes: int
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
        num_lanes: int = 1,
    ) -> "EpochPlan":
        """Plan an epoch.

        Args:
            shards: rows in use and bytes of each shard.
            seed, epoch: determine the order.
            batch_size: rows of a global batch.
            window_bytes: bound on the bytes of a window's shards; a larger shard forms its own window.
            bucket_batches: rows are sorted by length within groups of about this many batches, times the lanes.
            shuffle: False keeps shards and batches in order (validation); rows are still sorted by length.
            mix: how much of each source the epoch reads; None reads every row once.
            num_lanes: lanes of each window (`choose_num_lanes`); a single window has one.
        Raises:
            UserError: there are no rows.
        """
        used = np.flatnonzero(shards.rows > 0)
        if not len(used):
            raise UserError("No clips are left to read. Check the data set with `vadv data-info`, and data.missing.")
        order, reads = used, None
        num_windows = -(-int(shards.bytes[used].sum()) // window_bytes)
        if mix is not None and shuffle:
            reads = epoch_reads(shards.rows, mix.source, mix.quotas, seed=seed, epoch=epoch)
            if num_windows > 1:
                reads = spread(reads, mix.source, num_windows, seed=seed, epoch=epoch)
            else:  # a single window contains all shards in every epoch, so it is read once
                none = np.zeros_like(used)
                reads = Reads.join([reads, Reads(used, none, none, none)])
            order = reads.shard
        elif shuffle and num_windows > 1:
            order = used[np.random.default_rng([_SHARD_STREAM, seed, epoch]).permutation(len(used))]
        starts = [0] if num_windows <= 1 else _window_starts(shards.bytes[order], window_bytes, num_lanes)
        window_rows = np.add.reduceat(shards.rows[order] if reads is None else reads.rows, starts)
        batches = -(-window_rows // batch_size)
        first_steps = np.concatenate([[0], np.cumsum(batches)])
        return cls(
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            bucket_batches=bucket_batches,
            shuffle=shuffle,
            num_lanes=num_lanes if num_windows > 1 else 1,
            _shard_rows=shards.rows,
            _order=order,
            _reads=reads,
            _window_starts=np.asarray([*starts, len(order)], np.int64),
            _window_rows=window_rows,
            _first_steps=first_steps,
        )

    @property
    def num_steps(self) -> int:
        """Number of global batches in the epoch."""
        return int(self._first_steps[-1])

    @property
    def num_windows(self) -> int:
        """Number of windows in the epoch."""
        return len(self._window_rows)

    @property
    def num_rows(self) -> int:
        """Number of rows in the epoch's batches, counting repeats by a mixture."""
        return int(self._window_rows.sum())

    def window(self, index: int, rank: int = 0, world_size: int = 1) -> PlannedWindow:
        """Return one window of the epoch, as a rank reads it; by default, a rank that reads everything."""
        reads = slice(self._window_starts[index], self._window_starts[index + 1])
        shards, read = np.unique(self._order[reads], return_inverse=True)
        part = None
        if self.num_lanes > 1:
            rows = self._shard_rows[self._order[reads]] if self._reads is None else self._reads.rows[reads]
            rows_S = np.zeros(len(shards), np.int64)
            np.add.at(rows_S, read, rows)
            part = Lanes.deal(rows_S, self.num_lanes, self.batch_size).part(rank, world_size)
            shards = shards[part.shards]
        first, following = self._first_steps[index], self._first_steps[index + 1]
        return PlannedWindow(
            index=index,
            shards=tuple(shards.tolist()),
            rows=int(self._shard_rows[shards].sum()),
            reads=int(self._window_rows[index]),
            first_step=int(first),
            num_batches=int(following - first),
            part=part,
        )

    def window_of_step(self, step: int) -> PlannedWindow:
        """Return the window that contains a step of the epoch."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} is outside an epoch of {self.num_steps} steps")
        return self.window(int(np.searchsorted(self._first_steps, step, side="right")) - 1)

    def batches(self, window: PlannedWindow, rows: IntArray, length_R: IntArray) -> list[IntArray]:
        """Order one window's rows into its global batches.

        Args:
            window: the window.
            rows: positions of the rows in use, ascending, [window.rows].
            length_R: length of every row of the window, [R], as of `text_lengths`.
        Returns:
            `window.num_batches` arrays of row positions. With one lane these are the global batches, which together
            contain each of `rows` exactly once, or as often as the mixture reads it. With several they are what the
            rank takes of each, ordered by lane.
        """
        if len(rows) != window.rows:
            raise UserError(
                f"A window has {len(rows)} rows in use, but dataset.json declares {window.rows} "
                f"(shards {window.shards[0]} to {window.shards[-1]}). Run `vadv data-check` on the data set."
            )
        if window.part is not None:
            return self._rank_batches(window, window.part, rows, length_R)
        random = self._random(window.index)
        ordered = self._ordered(window, window.shards, rows, length_R, self._batch_of(window), random)
        batches = _cut(ordered, self.batch_size)
        return [batches[i] for i in random.permutation(len(batches))] if self.shuffle else batches

    def batch_sizes(self, window: PlannedWindow) -> list[int]:
        """Rows of each global batch of a window on all ranks, in the order of its steps; only with several lanes."""
        assert window.part is not None, "with one lane, a rank holds whole batches"
        return [int(size) for size in window.part.window.sizes[self._batch_order(window)]]

    def _rank_batches(
        self, window: PlannedWindow, part: RankPart, rows: IntArray, length_R: IntArray
    ) -> list[IntArray]:
        """What a rank takes of each batch."""
        lanes, shards = part.window, np.asarray(window.shards, np.int64)
        lane_of_row = np.repeat(part.of_shard, self._shard_rows[shards])
        found, batch_of = [], []
        given = lanes.given(part.lanes.start)
        for lane in part.lanes:
            before, given = given, lanes.given(lane + 1)
            batch = np.repeat(np.arange(window.num_batches), np.diff(given - before))
            held = tuple(shards[part.of_shard == lane].tolist())
            random = self._random(window.index, lane)
            found.append(self._ordered(window, held, rows[lane_of_row == lane], length_R, batch, random))
            batch_of.append(batch)
        by_batch = np.concatenate(found)[np.argsort(np.concatenate(batch_of), kind="stable")]
        first = given - lanes.given(part.lanes.start)
        starts, stops = (first[:-1] + part.start).tolist(), (first[:-1] + part.stop).tolist()
        return [by_batch[starts[i] : stops[i]] for i in self._batch_order(window)]

    def _ordered(
        self,
        window: PlannedWindow,
        shards: tuple[int, ...],
        rows: IntArray,
        length_R: IntArray,
        batch: IntArray,
        random: np.random.Generator,
    ) -> IntArray:
        """Rows of a window or lane in the order in which its batches take them, before batches are permuted.

        Args:
            shards: the shards of `rows`, ascending.
            batch: the batch that takes the first row, the second row and so on, ascending.
        """
        if not self.shuffle:
            return rows[np.argsort(length_R[rows], kind="stable")]
        if self._reads is None:
            permuted = rows[random.permutation(len(rows))]
        else:
            reads = self._reads.take(slice(self._window_starts[window.index], self._window_starts[window.index + 1]))
            reads = reads.take(np.flatnonzero(np.isin(reads.shard, shards)))
            permuted = rows[repeated_apart(row_times(reads, shards, self._shard_rows, seed=self.seed), random)]
        if self.bucket_batches <= 1:
            return permuted
        # In each lane as many rows are sorted together as in a window without lanes: batches have fewer rows of a lane,
        # but are not padded more.
        num_lanes = 1 if window.part is None else len(window.part.window.rows)
        num_groups = max(1, round(window.num_batches / (self.bucket_batches * num_lanes)))
        group = batch * num_groups // window.num_batches
        return permuted[np.lexsort((length_R[permuted], group))]

    def _batch_of(self, window: PlannedWindow) -> IntArray:
        """The batch of each row of a window with one lane; the first batch has what does not fill one."""
        missing = window.num_batches * self.batch_size - window.reads
        return (np.arange(window.reads) + missing) // self.batch_size

    def _batch_order(self, window: PlannedWindow) -> IntArray:
        """The order of the batches of a window with several lanes, the same on every rank."""
        if not self.shuffle:
            return np.arange(window.num_batches)
        return self._random(window.index, self.num_lanes).permutation(window.num_batches)

    def _random(self, *at: int) -> np.random.Generator:
        """A generator for a window, or for one of its lanes."""
        return np.random.default_rng([_ROW_STREAM, self.seed, self.epoch, *at])


def sample_batches(
    texts: Sequence[str], *, batch_size: int, bucket_batches: int, accumulate: int, seed: int
) -> list[list[str]]:
    """The texts of the micro-batches of a few epochs over a sample of a split's texts, in one window."""
    table = ShardTable(np.array([len(texts)]), np.ones(1, np.int64))
    length, everything = text_lengths(texts), np.arange(len(texts))
    found: list[list[str]] = []
    epoch = 0
    while len(found) < _SAMPLE_BATCHES:
        plan = EpochPlan.build(
            table, seed=seed, epoch=epoch, batch_size=batch_size, window_bytes=1, bucket_batches=bucket_batches
        )
        for batch in plan.batches(plan.window(0), everything, length):
            parts = rank_slice(batch, 0, 1, accumulate)
            found += [[texts[row] for row in part] for part in parts if len(part)]
        epoch += 1
    return found


def usable_rows(window: Window, needed: Sequence[str]) -> IntArray:
    """Positions of the rows that have every feature of `needed`, ascending."""
    usable = np.ones(len(window), bool)
    for name in needed:
        usable &= window.features[name].present
    return np.flatnonzero(usable)


def rank_slice(batch: IntArray, rank: int, world_size: int, accumulate: int) -> list[IntArray]:
    """Rows of a global batch that one rank processes, as `accumulate` micro-batches of nearly equal size.

    Each rank takes every `world_size`-th row: neighbours have similar length, so all ranks need similar padding. With
    small batches some micro-batches are empty; the collator fills them with a row of weight zero.
    """
    return split_rows(batch[rank::world_size], accumulate)


def split_rows(rows: IntArray, parts: int) -> list[IntArray]:
    """Rows in parts of nearly equal size."""
    return [rows] if parts == 1 else np.array_split(rows, parts)


def micro_batch_rows(batch_size: int, world_size: int, accumulate: int) -> int:
    """Most rows of a result of `rank_slice`, of all ranks."""
    return math.ceil(math.ceil(batch_size / world_size) / accumulate)


def _window_starts(sizes: IntArray, window_bytes: int, num_lanes: int) -> list[int]:
    """Starts of windows of bounded bytes in a sequence of shards; a larger shard forms its own window.

    A window has a multiple of `num_lanes` shards if that many fit, so that lanes of equal shards are equal.
    """
    ends = np.cumsum(sizes)
    starts = [0]
    while True:
        before = ends[starts[-1] - 1] if starts[-1] else 0
        following = max(int(np.searchsorted(ends, before + window_bytes, side="right")), starts[-1] + 1)
        fit = following - starts[-1]
        if fit > num_lanes and following < len(sizes):
            following -= fit % num_lanes
        if following >= len(sizes):
            return starts
        starts.append(following)


def _cut(rows: IntArray, size: int) -> list[IntArray]:
    """Batches of consecutive rows, of which the first may be smaller."""
    return [rows[max(end - size, 0) : end] for end in range(len(rows), 0, -size)][::-1]

"""How often an epoch reads each row of several sources: a pure function of rows, mixing, seed and epoch.

An epoch takes a *quota* of rows from each source. A source is a ring of rows: the seed fixes the order of its shards
and of the rows in each shard. Each epoch continues on the ring where the previous one ended. Each row is therefore read
`quota / rows` times per epoch, rounded down or up, and over any number of epochs the read counts within a source differ
by at most one. If the quota is smaller than the source, all rows get their turn.

Shapes: N sources, S shards, U reads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vadv_dist.data.schema import IntArray

# Random streams, distinct from those of `plan`; further keyed by seed and source, shard or epoch.
_RING_STREAM, _RING_ROW_STREAM, _SPREAD_STREAM = 2, 3, 4


def quotas(rows_N: Sequence[int], mixing: str, weights_N: Sequence[float], temperature: float) -> list[int]:
    """Compute how many rows an epoch takes from each source, [N].

    Args:
        rows_N: rows of each source, each at least 1.
        mixing: `repeats` reads each row `weight` times. `equal` and `temperature` read as many rows as the sources
            have in total, in proportion to `weight` and to `weight * rows ** (1 / temperature)`.
        weights_N: weight of each source.
        temperature: 1 is proportional to the rows; higher values are closer to equal.
    Returns:
        the quotas; with `equal` or `temperature` a quota is 0 if its share is less than a row.
    """
    if mixing == "repeats":
        return [max(1, round(n * weight)) for n, weight in zip(rows_N, weights_N, strict=True)]
    rows, weights = np.asarray(rows_N, np.float64), np.asarray(weights_N, np.float64)
    shares = weights if mixing == "equal" else weights * rows ** (1.0 / temperature)
    exact = rows.sum() * (shares / shares.sum())
    whole = np.floor(exact).astype(np.int64)
    # Assign the rows lost by rounding down to the largest remainders; ties go to the first source.
    left = int(sum(rows_N)) - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return [int(n) for n in whole]


class Reads(NamedTuple):
    """Parts of shards that an epoch reads, each array [U].

    Attributes:
        shard: index of the shard.
        start, stop: range of the shard's rows in use, in the order of `ring_rows`.
        times: how often each of these rows is read.
    """

    shard: IntArray
    start: IntArray
    stop: IntArray
    times: IntArray

    @property
    def rows(self) -> IntArray:
        """Number of rows of each read, counted as often as they are read, [U]."""
        return (self.stop - self.start) * self.times

    def take(self, at: IntArray | slice) -> "Reads":
        """Select reads, in the given order."""
        return Reads(*(values[at] for values in self))

    @classmethod
    def join(cls, parts: Sequence["Reads"]) -> "Reads":
        """Concatenate reads."""
        return cls(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def epoch_reads(rows_S: IntArray, source_S: IntArray, quotas_N: Sequence[int], *, seed: int, epoch: int) -> Reads:
    """Choose what an epoch reads: quotas_N[n] rows of each source n.

    Args:
        rows_S: rows in use of each shard.
        source_S: source of each shard, ascending.
        quotas_N: rows that the epoch takes from each source.
        seed, epoch: determine the choice.
    """
    parts = []
    bounds = np.searchsorted(source_S, np.arange(len(quotas_N) + 1))
    for source, quota in enumerate(quotas_N):
        shards = bounds[source] + np.flatnonzero(rows_S[bounds[source] : bounds[source + 1]] > 0)
        ring = shards[np.random.default_rng([_RING_STREAM, seed, source]).permutation(len(shards))]
        ends = np.cumsum(rows_S[ring])
        size = int(ends[-1])
        rounds, arc = divmod(quota, size)
        if rounds:
            parts.append(Reads(ring, np.zeros_like(ring), rows_S[ring], np.full_like(ring, rounds)))
        begin = epoch * quota % size
        parts.append(_arc(ring, ends, begin, min(begin + arc, size)))
        parts.append(_arc(ring, ends, 0, begin + arc - size))
    return Reads.join(parts)


def spread(reads: Reads, source_S: IntArray, parts: int, *, seed: int, epoch: int) -> Reads:
    """Order an epoch's reads, with each source spread evenly over the epoch and repeats of a shard far apart.

    Args:
        reads: what the epoch reads.
        source_S: source of each shard.
        parts: maximum number of reads per shard; a shard that is read more often repeats its rows within each read.
        seed, epoch: determine the order.
    """
    random = np.random.default_rng([_SPREAD_STREAM, seed, epoch])
    split = np.minimum(reads.times, parts)
    read = np.repeat(np.arange(len(split)), split)
    copied, split_U = reads.take(read), split[read]
    copy = np.arange(len(split_U)) - np.repeat(np.cumsum(split) - split, split)
    times = copied.times // split_U + (copy < copied.times % split_U)
    place = (copy + random.random(len(split))[read]) / split_U
    # The reads of a source, in the order of their positions, are spaced evenly over the epoch.
    source = source_S[copied.shard]
    by_source = np.lexsort((place, source))
    sizes = np.unique(source, return_counts=True)[1]
    rank = np.arange(len(source)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    even = (rank + random.random(len(rank))) / np.repeat(sizes, sizes)
    order = by_source[np.argsort(even, kind="stable")]
    return Reads(copied.shard, copied.start, copied.stop, times).take(order)


def row_times(reads: Reads, shards: Sequence[int], rows_S: IntArray, *, seed: int) -> IntArray:
    """Count how often each row in use of some shards is read, [rows].

    Args:
        reads: reads of these shards.
        shards: the shards, in the order in which they are in memory.
        rows_S: rows in use of every shard.
        seed: determines the rows of a range of a shard.
    """
    held = np.asarray(shards, np.int64)
    ends = np.cumsum(rows_S[held])
    first = dict(zip(held.tolist(), (ends - rows_S[held]).tolist(), strict=True))
    times = np.zeros(int(ends[-1]), np.int64)
    for shard, start, stop, often in zip(*(values.tolist() for values in reads), strict=True):
        rows = int(rows_S[shard])
        if start == stop:
            continue
        if stop - start == rows:
            times[first[shard] : first[shard] + rows] += often
        else:
            times[first[shard] + ring_rows(rows, shard, seed)[start:stop]] += often
    return times


def ring_rows(rows: int, shard: int, seed: int) -> IntArray:
    """Order of a shard's rows in use on the source's ring, the same in every epoch."""
    return np.random.default_rng([_RING_ROW_STREAM, seed, shard]).permutation(rows)


def repeated_apart(times: IntArray, random: np.random.Generator) -> IntArray:
    """A random order with row r repeated times[r] times at even distances, so that a batch seldom repeats a row."""
    row = np.repeat(np.arange(len(times)), times)
    copy = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
    return row[np.argsort((copy + random.random(len(times))[row]) / times[row], kind="stable")]


def _arc(ring: IntArray, ends: IntArray, low: int, high: int) -> Reads:
    """Reads of the rows [low, high) of a ring whose shards end at `ends`; none if the range is empty."""
    rows = np.diff(ends, prepend=0)
    start, stop = (np.clip(bound - (ends - rows), 0, rows) for bound in (low, high))
    read = np.flatnonzero(start < stop)
    return Reads(ring[read], start[read], stop[read], np.ones_like(read))

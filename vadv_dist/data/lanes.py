"""Lanes: parts of a window from which every global batch takes its share, so that a rank reads only some of them.

The shards of a window are dealt to lanes of about equally many rows. Batch j takes of each lane what is due: after it,
lane l has given its share of all rows so far, up to rounding. In a batch, rows are ordered by lane. Ranks take
consecutive parts of a batch, cut between lanes wherever possible; all of this depends on the sizes of the shards alone.

If the ranks divide the lanes, a rank reads its lanes and nothing else. Otherwise, or if a window's lanes are too
unequal for that, neighbouring ranks share lanes, and all ranks have equally many rows.

Shapes: S shards of the window, L lanes, T batches of the window.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vadv_dist.data.schema import IntArray

_MOST_LANES = 64
# Ranks have up to this much more than their part of a batch, where that saves reading a neighbour's lane.
_TOLERANCE = 1 / 8


def choose_num_lanes(bytes_S: IntArray, *, batch_size: int, window_bytes: int) -> int:
    """How many lanes a plan has: 1 if the shards fit into one window, else a power of two up to 64.

    No more than there are rows in a batch, or shards in a window.

    Args:
        bytes_S: bytes of the shards in use.
        batch_size: rows of a global batch.
        window_bytes: bound on the bytes of a window's shards.
    """
    if not len(bytes_S) or int(bytes_S.sum()) <= window_bytes:
        return 1
    shards_per_window = int(window_bytes // max(1, float(np.median(bytes_S))))
    return 1 << (max(1, min(_MOST_LANES, batch_size, shards_per_window)).bit_length() - 1)


@dataclass(frozen=True)
class RankPart:
    """What one rank takes of a window.

    Attributes:
        window: all lanes of the window.
        lanes: the lanes that it reads.
        shards: positions of their shards in the window, ascending.
        of_shard: lane of each of these shards.
        start, stop: range of its rows in each batch, counted from the first row of `lanes`, [T] each.
        most_rows: bound on `stop - start` that is the same for all ranks.
    """

    window: "Lanes"
    lanes: range
    shards: IntArray
    of_shard: IntArray
    start: IntArray
    stop: IntArray
    most_rows: int


@dataclass(frozen=True)
class Lanes:
    """The lanes of one window.

    Attributes:
        of_shard: lane of each shard, [S].
        rows: rows of each lane that the window's batches read, [L], at least 1 per full batch.
        batch_size: rows of every batch but the first one, which has what is left.
    """

    of_shard: IntArray
    rows: IntArray
    batch_size: int

    @classmethod
    def deal(cls, rows_S: Sequence[int] | IntArray, num_lanes: int, batch_size: int) -> "Lanes":
        """Deal shards to at most `num_lanes` lanes: the largest first, each to the lane with the fewest rows.

        The number of lanes is halved until a full batch has at least one row of each.

        Args:
            rows_S: rows of each shard that the window's batches read, each at least 1.
        """
        rows_S = np.asarray(rows_S, np.int64)
        largest_first = np.argsort(-rows_S, kind="stable").tolist()
        while True:
            of_shard, dealt = np.zeros(len(rows_S), np.int64), [(0, lane) for lane in range(num_lanes)]
            for shard in largest_first:
                rows, lane = dealt[0]
                of_shard[shard] = lane
                heapq.heapreplace(dealt, (rows + int(rows_S[shard]), lane))
            if num_lanes == 1 or min(dealt)[0] * batch_size >= int(rows_S.sum()):
                return cls(of_shard, np.array([rows for rows, _ in sorted(dealt, key=lambda d: d[1])]), batch_size)
            num_lanes //= 2

    @property
    def sizes(self) -> IntArray:
        """Rows of each batch, [T]."""
        return np.diff(self._filled)

    @property
    def _ends(self) -> IntArray:
        """Rows of the lanes before each one, and of all, [L + 1]."""
        return np.cumsum([0, *self.rows])

    @property
    def _filled(self) -> IntArray:
        """Rows in the batches before each one, and in all, [T + 1]."""
        total = int(self.rows.sum())
        batches = -(-total // self.batch_size)
        return np.maximum(total - np.arange(batches, -1, -1) * self.batch_size, 0)

    def given(self, lane: int) -> IntArray:
        """Rows of the lanes before `lane` in the batches before each one, and in all, [T + 1]."""
        ends = self._ends
        return np.asarray(self._filled * ends[lane] // ends[-1], np.int64)

    def part(self, rank: int, world_size: int) -> RankPart:
        """What a rank takes: of each batch a range of rows ordered by lane, and the lanes that contain them.

        Ranks and lanes are divided into as many groups as possible, each of some ranks and their lanes, and the ranks
        of a group share its rows equally.
        """
        num_groups = self._num_groups(world_size)
        ranks, lanes = world_size // num_groups, len(self.rows) // num_groups
        group, place = divmod(rank, ranks)
        held = range(group * lanes, (group + 1) * lanes)
        low, high = np.diff(self.given(held.start)), np.diff(self.given(held.stop))
        start, stop = (low + at * (high - low) // ranks for at in (place, place + 1))
        if ranks > 1:
            bounds = [np.diff(self.given(lane)) for lane in range(held.start, held.stop + 1)]
            used = [
                lane
                for lane, (first, end) in zip(held, pairwise(bounds), strict=True)
                if (np.minimum(stop, end) > np.maximum(start, first)).any()
            ] or [held.start]  # a rank without rows needs one to fill up its batches
            held = range(used[0], used[-1] + 1)
            low = bounds[held.start - group * lanes]
        shards = np.flatnonzero(np.isin(self.of_shard, held))
        return RankPart(
            window=self,
            lanes=held,
            shards=shards,
            of_shard=self.of_shard[shards],
            start=start - low,
            stop=stop - low,
            most_rows=-(-self._most_rows(num_groups) // ranks),
        )

    def _num_groups(self, world_size: int) -> int:
        """Number of groups of ranks, each with its own lanes."""
        total = int(self.rows.sum())
        for groups in range(math.gcd(world_size, len(self.rows)), 1, -1):
            if world_size % groups or len(self.rows) % groups:
                continue
            if self.rows.reshape(groups, -1).sum(axis=1).max() * groups <= total * (1 + _TOLERANCE):
                return groups
        return 1

    def _most_rows(self, num_groups: int) -> int:
        """Bound on the rows of a group in a batch."""
        total = int(self.rows.sum())
        rows = self.rows.reshape(num_groups, -1).sum(axis=1)
        if not (rows * self.batch_size % total).any():  # every full batch takes equally much of a group
            return int(rows.max()) * self.batch_size // total
        return min(self.batch_size, -(-int(rows.max()) * self.batch_size // total) + 1)

"""Which training clips a run with `data.train_share` uses: a pure function of rows in use, share and seed.

Studies of little data draw clips at random and keep the distribution of labels (MultiPoint, arXiv:2211.06607, with 1 %
of the clips). So does this: every shard contributes its share, rounded up or down at random, and clips within a shard
are drawn at random. The number of clips taken from each shard is known without reading any, and a larger share contains
a smaller one with the same seed.
"""

from dataclasses import dataclass

import numpy as np

from vadv_dist.data.schema import IntArray

# Random streams, distinct from those of `plan` and `mixture`; further keyed by seed and shard.
_SHIFT_STREAM, _ROW_STREAM = 5, 6


@dataclass(frozen=True)
class TrainShare:
    """A share of the training clips of each source.

    Attributes:
        share: above 0 and below 1.
        seed: draws the clips.
    """

    share: float
    seed: int

    def rows_taken(self, rows_S: IntArray) -> IntArray:
        """Number of rows taken from each shard of one source, [S]; together the share, rounded, of all rows.

        Row j = 1, 2, … of shard s has the rank (j - u_s) / rows_s with a random u_s in [0, 1), and the rows of lowest
        rank are taken. Ranks do not depend on the share, so that a larger one takes no fewer rows of any shard.

        Args:
            rows_S: rows in use of each shard.
        """
        wanted = round(self.share * int(rows_S.sum()))
        shift_S = np.random.default_rng([_SHIFT_STREAM, self.seed]).random(len(rows_S))
        size_S = np.maximum(rows_S, 1)
        taken_S: IntArray = np.minimum(np.floor(self.share * rows_S + shift_S).astype(np.int64), rows_S)
        while (total := int(taken_S.sum())) != wanted:
            if total < wanted:
                following_S = np.where(taken_S < rows_S, (taken_S + 1 - shift_S) / size_S, np.inf)
                taken_S[following_S.argmin()] += 1
            else:
                last_S = np.where(taken_S > 0, (taken_S - shift_S) / size_S, -np.inf)
                taken_S[last_S.argmax()] -= 1
        return taken_S

    def rows_of(self, shard: int, rows: int, taken: int) -> IntArray:
        """Positions of the rows taken from a shard among its rows in use, ascending, [taken].

        Args:
            shard: index of the shard in its source.
            rows: number of its rows in use.
            taken: number of rows taken, an element of `rows_taken`.
        """
        return np.sort(np.random.default_rng([_ROW_STREAM, self.seed, shard]).permutation(rows)[:taken])

"""The nearest items of a gallery that arrives in blocks: exact, with memory for one block.

Shape letters: Q queries, G gallery items, E embedding width, k items kept.
"""

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.classes import FloatArray, IntArray
from vadv_dist.evaluation.retrieval import STEPS, cosine_steps, unit_rows

_BLOCK_VALUES = 1 << 19  # cosines in memory at a time
# A key holds the distance in steps in its upper half and the item's number in its lower half.
_NUMBER_BITS = 32


class Nearest:
    """The k nearest items of each query, over all blocks added so far.

    Cosines are compared in steps of 2⁻²⁹, as in `retrieval`; tied items stay in the order of the gallery.

    Args:
        query_QE: queries, finite; a vector of zeros has cosine 0 with every other.
        k: number of items to keep of each query.
    Raises:
        ValueError: k is below 1, or queries of another shape.
    """

    def __init__(self, query_QE: npt.ArrayLike, k: int) -> None:
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1")
        self._query = unit_rows(_matrix(query_QE, "queries"))
        self._k, self._count = k, 0
        self._keys = np.empty((len(self._query), 0), np.int64)

    def add(self, gallery_GE: npt.ArrayLike) -> None:
        """Add items, which follow those of earlier calls.

        Raises:
            ValueError: items of another shape, or a value that is not finite.
        """
        gallery = unit_rows(_matrix(gallery_GE, "items"))
        if gallery.shape[1] != self._query.shape[1]:
            raise ValueError(f"items have {gallery.shape[1]} dimensions, the queries {self._query.shape[1]}")
        columns = max(self._k, 4096)
        rows = max(1, _BLOCK_VALUES // columns)
        for start in range(0, len(gallery), columns):
            block = gallery[start : start + columns]
            numbers = np.arange(self._count, self._count + len(block))
            kept = np.empty((len(self._query), min(self._k, self._keys.shape[1] + len(block))), np.int64)
            for first in range(0, len(self._query), rows):
                mine = slice(first, first + rows)
                keys = (cosine_steps(self._query[mine], block).astype(np.int64) << _NUMBER_BITS) + numbers
                keys = np.concatenate((self._keys[mine], keys), axis=1)
                kept[mine] = np.partition(keys, kept.shape[1] - 1, axis=1)[:, : kept.shape[1]]
            self._keys, self._count = kept, self._count + len(block)

    def result(self) -> tuple[IntArray, FloatArray]:
        """Item numbers, from 0, and cosines, nearest first: [Q, k] each, or fewer columns if there are fewer items."""
        keys = np.sort(self._keys, axis=1)
        return keys & ((1 << _NUMBER_BITS) - 1), -(keys >> _NUMBER_BITS) / STEPS


def _matrix(values: npt.ArrayLike, name: str) -> FloatArray:
    matrix = np.asarray(values, np.float64)
    if matrix.ndim != 2:
        raise ValueError(f"{name} have shape {list(matrix.shape)}, expected [rows, E]")
    bad = int((~np.isfinite(matrix).all(axis=1)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(matrix)} {name} have values that are not finite")
    return matrix

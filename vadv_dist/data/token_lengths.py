"""A few lengths to which batches of texts are padded, so that a device sees few shapes and computes little padding.

Shape letters: R batches, C candidate lengths.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vadv_dist.data.schema import IntArray

# Tensor cores and attention kernels prefer multiples of 8. Short texts may need multiples of 4 for the bound: at 15
# tokens, rounding up to a multiple of 8 alone is a fifth.
_MULTIPLES = (8, 4)
_MOST_LENGTHS = 12
# Of the sample; the goal of 15 % is for batches that are not in it.
_MAX_PADDING = 0.14


def choose_lengths(
    num_tokens_R: npt.ArrayLike,
    max_tokens: int,
    *,
    num_rows_R: npt.ArrayLike = 1,
    limit: int | None = None,
    multiples: Sequence[int] = _MULTIPLES,
    most: int = _MOST_LENGTHS,
    max_padding: float = _MAX_PADDING,
) -> tuple[int, ...]:
    """Choose the fewest lengths with which static shapes add at most a given share to what is computed.

    Args:
        num_tokens_R: number of tokens of the longest text of each batch of a sample.
        max_tokens: number of tokens of the longest text that may come. The last of the results holds it.
        num_rows_R: number of rows of each batch. Batches are filled up to the largest, which counts as padding.
        limit: no result is above this; None sets no limit.
        multiples: the results are multiples of the one of these that needs the fewest lengths for the bound, the first
            if equal; except one that equals `limit`.
        most: maximum number of results.
        max_padding: bound on the tokens added to batches that are as long as their longest text, as a share of all
            tokens. If it cannot be kept, the result has the least padding.
    Returns:
        ascending lengths. A batch is padded to the lowest one that holds its longest text.
    Raises:
        ValueError: a text has more than `max_tokens`, `limit` is less than that, or `most` is below 1.
    """
    num_tokens, num_rows = np.asarray(num_tokens_R, np.int64), np.asarray(num_rows_R, np.int64)
    needed = float((num_tokens * num_rows).sum() / num_rows.max(initial=1))  # in full batches
    num_tokens = np.sort(num_tokens)
    limit = np.iinfo(np.int64).max if limit is None else limit
    if not max(num_tokens[-1:], default=0) <= max_tokens <= limit:
        raise ValueError(f"The longest text has {num_tokens[-1:]} tokens, max_tokens is {max_tokens}, limit {limit}.")
    if most < 1:
        raise ValueError(f"most is {most}, expected at least 1.")
    found = []
    for multiple in multiples:
        rounded = -(-np.append(num_tokens, max_tokens) // multiple) * multiple
        candidates_C = np.unique(np.minimum(rounded, limit))
        found.append(_fewest(num_tokens, needed, candidates_C, most, max_padding))
    return min(found, key=lambda one: (max(one[1], max_padding), len(one[0])))[0]


def _fewest(
    num_tokens: IntArray, needed: float, candidates_C: IntArray, most: int, max_padding: float
) -> tuple[tuple[int, ...], float]:
    """The fewest candidates, the last one included, that keep the bound; or `most`. And their share of padding."""
    num_candidates = len(candidates_C)
    # Row i, column j: tokens computed for the batches that are padded to candidate j if the one chosen before it is
    # candidate i - 1, or none for i = 0. Of each batch one row is counted.
    batches_up_to = np.concatenate([[0], np.searchsorted(num_tokens, candidates_C, side="right")])
    cost_CC = (candidates_C * (batches_up_to[1:] - batches_up_to[:, None])).astype(np.float64)
    cost_CC[np.tri(num_candidates + 1, num_candidates, -1, dtype=bool)] = np.inf
    # Tokens computed for the batches up to each candidate with as many lengths as `before_CC` has rows, the candidate
    # being the last; and the row of `cost_CC` that gives the length before it.
    computed_C, before_CC = cost_CC[0], [np.zeros(num_candidates, np.int64)]
    while computed_C[-1] - needed > max_padding * computed_C[-1] and len(before_CC) < min(most, num_candidates):
        options_CC = computed_C[:, None] + cost_CC[1:]
        before_CC.append(options_CC.argmin(axis=0) + 1)
        computed_C = options_CC.min(axis=0)
    chosen, at = [], num_candidates
    for before_C in reversed(before_CC):
        chosen.append(int(candidates_C[at - 1]))
        at = int(before_C[at - 1])
    return tuple(reversed(chosen)), float(1 - needed / max(computed_C[-1], 1))


def padded_length(num_tokens: int, lengths: tuple[int, ...]) -> int:
    """The smallest of some ascending lengths that holds a text; its own length if there are none.

    Raises:
        ValueError: it is longer than all of them.
    """
    if not lengths:
        return num_tokens
    fitting = next((length for length in lengths if length >= num_tokens), None)
    if fitting is None:
        raise ValueError(f"A text has {num_tokens} tokens, more than the longest of {lengths}.")
    return fitting

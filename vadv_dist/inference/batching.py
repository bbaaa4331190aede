"""Batch texts for inference: sorted by length and cut by tokens, to avoid padding."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def token_budget_batches(num_tokens: IntArray, batch_tokens: int, batch_rows: int | None = None) -> list[IntArray]:
    """Cut rows into batches of similar length.

    Rows are taken longest first. A batch is closed when one more row would exceed the budget or, once it is a quarter
    full, when the length changes; most batches then have no padding.

    Args:
        num_tokens: length of each row in tokens, [R].
        batch_tokens: bound on the number of rows times the longest row; a longer row forms its own batch.
        batch_rows: bound on the number of rows; None for none.
    Returns:
        row indices of each batch; every row is in exactly one.
    Raises:
        ValueError: the budget is below one token.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens is {batch_tokens}, expected at least 1")
    order = np.argsort(-num_tokens, kind="stable")
    lengths = num_tokens[order]
    batches, start = [], 0
    while start < len(order):
        longest = int(lengths[start])
        end = min(len(order), start + max(1, batch_tokens // max(1, longest)), start + (batch_rows or len(order)))
        enough = start + max(1, batch_tokens // (4 * max(1, longest)))
        if enough < end:
            changes = np.flatnonzero(lengths[enough:end] != lengths[enough - 1 : end - 1])
            end = enough + int(changes[0]) if changes.size else end
        batches.append(order[start:end])
        start = end
    return batches


def padded(rows: list[list[int]], pad_id: int) -> tuple[IntArray, IntArray]:
    """Pad token ids on the right to a rectangle.

    Returns:
        token ids and attention mask (1 for tokens, 0 for padding), each [B, L].
    """
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, np.int64)
    input_ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return input_ids, mask.astype(np.int64)


def groups_of_similar_length(num_tokens: IntArray, fixed_tokens: int) -> list[IntArray]:
    """Divide few rows so that computing them costs least, if a group costs its rows times its longest plus a constant.

    Args:
        num_tokens: length of each row in tokens, [R].
        fixed_tokens: what a group costs beside its tokens, as a number of tokens.
    Returns:
        row indices of each group, the longest first; every row is in exactly one.
    """
    order = np.argsort(-num_tokens, kind="stable")
    lengths = num_tokens[order]
    starts = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist()]  # where a group may begin
    ends = [*starts[1:], len(order)]
    least, cut = [0], [0]  # of the rows before each place: the cost, and where their last group begins
    for end in ends:
        costs = [
            least[i] + fixed_tokens + (end - start) * int(lengths[start])
            for i, start in enumerate(starts[: len(least)])
        ]
        best = int(np.argmin(costs))
        least.append(costs[best])
        cut.append(best)
    groups, place = [], len(ends)
    while place:
        groups.append(order[starts[cut[place]] : ends[place - 1]])
        place = cut[place]
    return groups[::-1]

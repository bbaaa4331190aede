"""Leave rows out of a loss without changing the shapes of tensors, which recorded steps need.

NaN in a row that does not count reaches neither a loss nor a gradient: rows are selected, because NaN times 0 is NaN.

Shape letters: B batch, D width.
"""

import torch
from torch import Tensor

from vadv_dist.objectives.base import at_least_fp32
from vadv_dist.objectives.outputs import Rows


def kept(values_BD: Tensor, counts_B: Tensor) -> Tensor:
    """Replace rows that do not count by zeros, in fp32 or wider.

    Args:
        values_BD: any values, [B, D]; NaN in rows that do not count reaches neither result nor gradient.
        counts_B: true for rows that count, [B].
    """
    return torch.where(counts_B[:, None], at_least_fp32(values_BD), 0.0)


def pairs(counts_B: Tensor) -> Tensor:
    """True where both rows of a pair count, [B, B]."""
    return counts_B[:, None] & counts_B


def ratio(total: Tensor, count: Tensor) -> Tensor:
    """The quotient, or 0 where the count is 0."""
    return total / count.clamp(min=1)


def mean_share(loss_B: Tensor, rows: Rows) -> Tensor:
    """The local rows' share of a mean over all rows with the teacher's inputs, [].

    Args:
        loss_B: a loss of each row, [B].
        rows: the rows; only those that count are summed.
    """
    return torch.where(rows.counted, loss_B, 0.0).sum() / rows.num_video_rows


def counted_values(values_BD: Tensor | None, rows: Rows) -> Tensor:
    """What an objective reads of a view, with zeros in rows that do not count, [B, D].

    Raises:
        ValueError: the view lacks it.
    """
    if values_BD is None:
        raise ValueError("The objective reads something that the models do not return.")
    return kept(values_BD, rows.counted)

"""A contrastive bound of the mutual information of two representations.

Shape letters: G rows of all ranks, E width of an embedding.
"""

import torch
from torch import Tensor, nn

from vadv_dist.objectives.base import at_least_fp32


def info_nce(left_GE: Tensor, right_GE: Tensor, counts_G: Tensor) -> Tensor:
    """The InfoNCE loss: log n - loss is a lower bound of the mutual information, and so at most log n.

    Each row identifies its partner among all rows, from left to right and from right to left; the mean of both.
    Source: van den Oord et al., arXiv:1807.03748, eq. 4; the bound is that of Poole et al., arXiv:1905.06922, eq. 10.

    Args:
        left_GE, right_GE: embeddings, [G, E], whose inner products are the scores of pairs: of unit length, one side
            times the inverse of a temperature.
        counts_G: true for rows that count, [G]; n is their number.
    Returns:
        the loss, [], fp32 or wider; 0 if no row counts.
    """
    scores_GG = at_least_fp32(left_GE) @ at_least_fp32(right_GE).T
    # A finite number: minus infinity has no gradient, and a row that does not count would have no other score.
    scores_GG = scores_GG.masked_fill(~(counts_G[:, None] & counts_G), torch.finfo(scores_GG.dtype).min)
    partner_G = torch.arange(len(scores_GG), device=scores_GG.device)
    losses_G = sum(
        nn.functional.cross_entropy(scores, partner_G, reduction="none") for scores in (scores_GG, scores_GG.T)
    )
    assert isinstance(losses_G, Tensor)
    return torch.where(counts_G, losses_G / 2, 0.0).sum() / counts_G.sum().clamp(min=1)

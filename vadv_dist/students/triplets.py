"""Triplet losses: an anchor is closer to rows of its class than to rows of others, by a margin.

Shape letters: G rows of all ranks, E width of an embedding.
"""

import torch
from torch import Tensor, nn


def cosine_distance(left_GE: Tensor, right_GE: Tensor) -> Tensor:
    """1 - cosine of every row on the left with every row on the right, [G, G]."""
    return 1 - nn.functional.normalize(left_GE, dim=1) @ nn.functional.normalize(right_GE, dim=1).T


def batch_all(
    positive_GG: Tensor, negative_GG: Tensor, is_positive_GG: Tensor, is_negative_GG: Tensor, margin: float
) -> Tensor:
    """Mean of max(0, d(anchor, positive) - d(anchor, negative) + margin) over all triplets that violate the margin.

    Takes memory for pairs, not for triplets: for an anchor, the negatives nearer than a positive plus the margin are
    the first few of its sorted negatives, and their distances sum to a running sum.

    Args:
        positive_GG, negative_GG: distances of anchors (rows) to candidates (columns).
        is_positive_GG, is_negative_GG: which candidates are in the anchor's class, and which are in another one.
        margin: above 0.
    Returns:
        the mean, []; 0 if no triplet violates the margin.
    Source:
        Hermans et al. 2017, arXiv:1703.07737, "batch all" with the mean over the triplets that are not 0.
    """
    nearest_GG = torch.where(is_negative_GG, negative_GG, torch.inf).sort(dim=1).values
    known_GG = torch.where(nearest_GG.isinf(), 0.0, nearest_GG)
    sums_GS = nn.functional.pad(known_GG.cumsum(dim=1), (1, 0))
    reach_GG = positive_GG + margin
    violations_GG = torch.searchsorted(nearest_GG.detach().contiguous(), reach_GG.detach().contiguous())
    loss_GG = violations_GG * reach_GG - sums_GS.gather(1, violations_GG)
    num_violations = torch.where(is_positive_GG, violations_GG, 0).sum()
    return torch.where(is_positive_GG, loss_GG, 0.0).sum() / num_violations.clamp(min=1)


def batch_hard(
    positive_GG: Tensor, negative_GG: Tensor, is_positive_GG: Tensor, is_negative_GG: Tensor, margin: float
) -> Tensor:
    """Mean over anchors of the hinge loss of the farthest positive and the nearest negative.

    Args:
        positive_GG, negative_GG, is_positive_GG, is_negative_GG, margin: as for `batch_all`.
    Returns:
        the mean over anchors that have a positive and a negative, []; 0 if there are none.
    Source:
        Hermans et al. 2017, arXiv:1703.07737, eq. 5.
    """
    has_both_G = is_positive_GG.any(dim=1) & is_negative_GG.any(dim=1)
    farthest_G = torch.where(is_positive_GG, positive_GG, -torch.inf).amax(dim=1)
    nearest_G = torch.where(is_negative_GG, negative_GG, torch.inf).amin(dim=1)
    # Replaced before the difference: infinity minus infinity is NaN.
    gap_G = torch.where(has_both_G, farthest_G, 0.0) - torch.where(has_both_G, nearest_G, 0.0)
    loss_G = torch.where(has_both_G, (gap_G + margin).clamp(min=0), 0.0)
    return loss_G.sum() / has_both_G.sum().clamp(min=1)


def relations(label_G: Tensor, counted_G: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs of counted rows have the same class, and which have different ones, [G, G] each."""
    counted_GG = counted_G[:, None] & counted_G[None, :]
    same_GG = label_G[:, None] == label_G[None, :]
    return counted_GG & same_GG, counted_GG & ~same_GG

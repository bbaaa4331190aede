"""Distances of single rows, as shares of the mean over the rows of a step that count.

Shape letters: B rows of this rank, C classes, E width of an embedding.
"""

import torch
from torch import Tensor, nn

from vadv_dist.models.heads import at_least_fp32
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import mean_share


def counted_values(values: Tensor, rows: Rows) -> Tensor:
    """Values [B, ...] in fp32 or wider, with 0 in rows that do not count: NaN times 0 would be NaN in the gradient."""
    counted = rows.counted.reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(counted, values.to(at_least_fp32(values.dtype)), 0.0)


def label_distance(logit_BC: Tensor, rows: Rows) -> Tensor:
    """Share of the mean Euclidean distance between scores and the one-hot vector of the row's class, []."""
    target_BC = nn.functional.one_hot(counted_values(rows.label, rows).long(), logit_BC.shape[1])
    return mean_share(torch.linalg.vector_norm(counted_values(logit_BC, rows) - target_BC, dim=1), rows)


def pair_distance(audio_BE: Tensor, visual_BE: Tensor, rows: Rows) -> Tensor:
    """Share of the mean Euclidean distance between the two embeddings of a clip, []."""
    gap_BE = counted_values(audio_BE, rows) - counted_values(visual_BE, rows)
    return mean_share(torch.linalg.vector_norm(gap_BE, dim=1), rows)


def logits(pair: PairOutputs) -> tuple[Tensor, Tensor]:
    """Scores of classes of a student that has them, [B, C] each."""
    if pair.audio_logit is None or pair.visual_logit is None:
        raise ValueError("The outputs have no scores of classes.")
    return pair.audio_logit, pair.visual_logit

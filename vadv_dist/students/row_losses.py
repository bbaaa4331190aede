"""Losses of single rows, as shares of the mean over the rows of a step that count.

Shape letters: B rows of this rank, C classes, E width of an embedding.
"""

import torch
from torch import Tensor, nn

from vadv_dist.objectives.outputs import Rows


def row_mean(values_B: Tensor, rows: Rows) -> Tensor:
    """This rank's share of the mean over counted rows, []; the values of other rows may be anything."""
    return torch.where(rows.counted, values_B, 0.0).sum() / rows.num_video_rows


def counted_values(values: Tensor, counted_B: Tensor) -> Tensor:
    """Values [B, ...] in fp32 or wider, with 0 in rows that do not count: NaN times 0 would be NaN in the gradient."""
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return torch.where(counted_B.reshape(-1, *[1] * (values.ndim - 1)), wide, 0.0)


def class_of(rows: Rows) -> Tensor:
    """Class of each row, [B]; 0 for rows that do not count."""
    return torch.where(rows.counted, rows.label, 0).long()


def cross_entropy(logits_BC: Tensor, rows: Rows) -> Tensor:
    """Share of the mean cross-entropy of softmax(logits) with the row's class, []."""
    scores_BC = counted_values(logits_BC, rows.counted)
    return row_mean(nn.functional.cross_entropy(scores_BC, class_of(rows), reduction="none"), rows)


def label_distance(logits_BC: Tensor, rows: Rows) -> Tensor:
    """Share of the mean Euclidean distance between scores and the one-hot vector of the row's class, []."""
    scores_BC = counted_values(logits_BC, rows.counted)
    target_BC = nn.functional.one_hot(class_of(rows), scores_BC.shape[1])
    return row_mean(torch.linalg.vector_norm(scores_BC - target_BC, dim=1), rows)


def pair_distance(audio_BE: Tensor, visual_BE: Tensor, rows: Rows) -> Tensor:
    """Share of the mean Euclidean distance between the two embeddings of a clip, []."""
    gap_BE = counted_values(audio_BE, rows.counted) - counted_values(visual_BE, rows.counted)
    return row_mean(torch.linalg.vector_norm(gap_BE, dim=1), rows)

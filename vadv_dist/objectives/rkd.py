"""RKD: distances and angles between rows are the same for student and teacher.

Source: Park et al., "Relational Knowledge Distillation", arXiv:1904.05068, eq. 5-8.

Shape letters: B, G rows, D width.
"""

import torch
from torch import Tensor, nn

from vadv_dist.objectives.distillation import teaching_term
from vadv_dist.objectives.masking import kept, pairs, ratio
from vadv_dist.objectives.relations import FeatureRelations

# Smallest squared distance of two rows, for a finite gradient; published code.
_EPS = 1e-12


def distance_loss(teacher_BD: Tensor, student_BD: Tensor, counts_B: Tensor) -> Tensor:
    """Huber loss of the distances of pairs, each in units of the mean distance of its model.

    Args:
        teacher_BD, student_BD: features, [B, D]; the widths may differ.
        counts_B: true for rows that count, [B].
    Returns:
        mean over all pairs, [], fp32 or wider; a row with itself contributes 0, as in the published code.
    """
    counts_BB = pairs(counts_B)
    teacher_BB = _distances(kept(teacher_BD, counts_B), counts_BB)
    student_BB = _distances(kept(student_BD, counts_B), counts_BB)
    loss_BB = nn.functional.smooth_l1_loss(student_BB, teacher_BB, reduction="none")
    return ratio(loss_BB.sum(), counts_BB.sum())


def angle_loss(teacher_BD: Tensor, student_BD: Tensor, counts_B: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles that two rows form at a third. Memory: B² · D + B³ values.

    Args:
        teacher_BD, student_BD: features, [B, D]; the widths may differ.
        counts_B: true for rows that count, [B].
    Returns:
        mean over all triplets, [], fp32 or wider; one with a row twice contributes 0, as in the published code.
    """
    counts_BBB = pairs(counts_B) & counts_B[:, None, None]
    teacher_BBB, student_BBB = _cosines(kept(teacher_BD, counts_B)), _cosines(kept(student_BD, counts_B))
    loss_BBB = nn.functional.smooth_l1_loss(student_BBB, teacher_BBB, reduction="none")
    return ratio(torch.where(counts_BBB, loss_BBB, 0.0).sum(), counts_BBB.sum())


class RKD(FeatureRelations):
    """`distance_loss` and `angle_loss` over the rows of all ranks."""

    described = (
        teaching_term("rkd_distance", "Distances of rows", "RKD-D"),
        teaching_term("rkd_angle", "Angles between rows", "RKD-A"),
    )

    def losses(self, teacher_GD: Tensor, student_GD: Tensor, counts_G: Tensor) -> dict[str, Tensor]:
        """See `FeatureRelations.losses`."""
        return {
            "rkd_distance": distance_loss(teacher_GD, student_GD, counts_G),
            "rkd_angle": angle_loss(teacher_GD, student_GD, counts_G),
        }


def _distances(features_BD: Tensor, counts_BB: Tensor) -> Tensor:
    """Distances in units of their mean over pairs of different rows that count, 0 for other pairs, [B, B]."""
    squared_B = features_BD.square().sum(dim=-1)
    squared_BB = squared_B[:, None] + squared_B - 2 * features_BD @ features_BD.T
    counts_BB = counts_BB & ~torch.eye(len(features_BD), dtype=torch.bool, device=features_BD.device)
    distance_BB = torch.where(counts_BB, squared_BB.clamp(min=_EPS).sqrt(), 0.0)
    return distance_BB / ratio(distance_BB.sum(), counts_BB.sum()).clamp(min=_EPS)


def _cosines(features_BD: Tensor) -> Tensor:
    """Cosine of the angle at row a between the directions to rows b and c, [B, B, B]."""
    direction_BBD = nn.functional.normalize(features_BD - features_BD[:, None], dim=-1)
    return direction_BBD @ direction_BBD.transpose(1, 2)

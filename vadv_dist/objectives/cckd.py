"""CCKD: the correlation of every two rows is the same for student and teacher.

Source: Peng et al., "Correlation Congruence for Knowledge Distillation", arXiv:1904.01802, eq. 4 and 8.

Shape letters: B, G rows, D width.
"""

import math

import torch
from torch import Tensor, nn

from vadv_dist.objectives.distillation import teaching_term
from vadv_dist.objectives.masking import kept, pairs, ratio
from vadv_dist.objectives.relations import FeatureRelations


def correlation_distance(
    teacher_BD: Tensor, student_BD: Tensor, counts_B: Tensor, *, gamma: float, order: int
) -> Tensor:
    """Squared Frobenius distance of the correlation matrices, divided by the number of pairs.

    The correlation is the Gaussian kernel exp(-γ ‖x - y‖²) of features of norm 1, as a Taylor series in x · y. The
    paper squares the distance; torchdistill does not, and leaves it to the model to normalise features.

    The features are compared as they are. The published code first projects both with trained layers, but this loss
    needs no common width, and alone it would let the two projections agree on a constant.

    Args:
        teacher_BD, student_BD: features, [B, D]; the widths may differ.
        counts_B: true for rows that count, [B].
        gamma: γ of the kernel.
        order: highest power of the series.
    Returns:
        the distance, [], fp32 or wider; 0 where no row counts.
    """
    teacher_BB = _kernel(kept(teacher_BD, counts_B), gamma, order)
    student_BB = _kernel(kept(student_BD, counts_B), gamma, order)
    counts_BB = pairs(counts_B)
    squared_BB = torch.where(counts_BB, (student_BB - teacher_BB).square(), 0.0)
    return ratio(squared_BB.sum(), counts_BB.sum())


class CCKD(FeatureRelations):
    """`correlation_distance` over the rows of all ranks.

    Args:
        gamma, order: see there.
    """

    described = (teaching_term("cckd", "Correlations of rows", "CCKD"),)

    def __init__(self, *, gamma: float, order: int) -> None:
        super().__init__()
        self.gamma, self.order = gamma, order

    def losses(self, teacher_GD: Tensor, student_GD: Tensor, counts_G: Tensor) -> dict[str, Tensor]:
        """See `FeatureRelations.losses`."""
        return {"cckd": correlation_distance(teacher_GD, student_GD, counts_G, gamma=self.gamma, order=self.order)}


def _kernel(features_BD: Tensor, gamma: float, order: int) -> Tensor:
    unit_BD = nn.functional.normalize(features_BD, dim=-1)
    cosine_BB = unit_BD @ unit_BD.T
    powers = [(2 * gamma) ** p / math.factorial(p) * cosine_BB**p for p in range(order + 1)]
    return math.exp(-2 * gamma) * torch.stack(powers).sum(dim=0)

"""SP: rows that are alike for the teacher are alike for the student.

Source: Tung & Mori, "Similarity-Preserving Knowledge Distillation", arXiv:1907.09682, eq. 1-4.

Shape letters: B, G rows, D width.
"""

from torch import Tensor, nn

from vadv_dist.objectives.distillation import teaching_term
from vadv_dist.objectives.masking import kept, ratio
from vadv_dist.objectives.relations import FeatureRelations


def similarity_distance(teacher_BD: Tensor, student_BD: Tensor, counts_B: Tensor) -> Tensor:
    """Squared Frobenius distance of the Gram matrices with rows of norm 1, divided by the number of pairs.

    The norm is Euclidean, as in the paper; torchdistill divides by the sum of absolute values.

    Args:
        teacher_BD, student_BD: features, [B, D]; the widths may differ.
        counts_B: true for rows that count, [B].
    Returns:
        the distance, [], fp32 or wider; 0 where no row counts.
    """
    difference_BB = _similarity(kept(student_BD, counts_B)) - _similarity(kept(teacher_BD, counts_B))
    return ratio(difference_BB.square().sum(), counts_B.sum() ** 2)


class SP(FeatureRelations):
    """`similarity_distance` over the rows of all ranks."""

    described = (teaching_term("sp", "Similarities of rows", "SP"),)

    def losses(self, teacher_GD: Tensor, student_GD: Tensor, counts_G: Tensor) -> dict[str, Tensor]:
        """See `FeatureRelations.losses`."""
        return {"sp": similarity_distance(teacher_GD, student_GD, counts_G)}


def _similarity(features_BD: Tensor) -> Tensor:
    return nn.functional.normalize(features_BD @ features_BD.T, dim=1)

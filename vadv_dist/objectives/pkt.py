"""PKT: the student's rows have the same neighbours in feature space as the teacher's.

Source: Passalis & Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", arXiv:1803.10837.

Shape letters: B, G rows, D width.
"""

import torch
from torch import Tensor, nn

from vadv_dist.objectives.distillation import teaching_term
from vadv_dist.objectives.masking import kept, pairs, ratio
from vadv_dist.objectives.relations import FeatureRelations

# Added inside the logarithm; published code.
_EPS = 1e-7


def neighbour_divergence(teacher_BD: Tensor, student_BD: Tensor, counts_B: Tensor) -> Tensor:
    """KL of the teacher's and the student's probabilities that one row picks another, which cosines define.

    A row's probabilities are its (cosine + 1) / 2 with all rows, divided by their sum. The paper sums over pairs of
    different rows. Like the authors' code and torchdistill, this is the mean over all pairs, a row with itself
    included.

    Args:
        teacher_BD, student_BD: features, [B, D]; the widths may differ.
        counts_B: true for rows that count, [B].
    Returns:
        the divergence, [], fp32 or wider; 0 where no row counts.
    """
    counts_BB = pairs(counts_B)
    teacher_BB = _probabilities(kept(teacher_BD, counts_B), counts_BB)
    student_BB = _probabilities(kept(student_BD, counts_B), counts_BB)
    divergence_BB = teacher_BB * ((teacher_BB + _EPS).log() - (student_BB + _EPS).log())
    return ratio(divergence_BB.sum(), counts_BB.sum())


class PKT(FeatureRelations):
    """`neighbour_divergence` over the rows of all ranks."""

    described = (teaching_term("pkt", "Neighbours of each row", "PKT"),)

    def losses(self, teacher_GD: Tensor, student_GD: Tensor, counts_G: Tensor) -> dict[str, Tensor]:
        """See `FeatureRelations.losses`."""
        return {"pkt": neighbour_divergence(teacher_GD, student_GD, counts_G)}


def _probabilities(features_BD: Tensor, counts_BB: Tensor) -> Tensor:
    unit_BD = nn.functional.normalize(features_BD, dim=-1)
    similarity_BB = torch.where(counts_BB, (unit_BD @ unit_BD.T + 1) / 2, 0.0)
    return similarity_BB / similarity_BB.sum(dim=1, keepdim=True).clamp(min=_EPS)

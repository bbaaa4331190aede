"""DIST: the student's predictions correlate with the teacher's, within each row and within each class.

Source: Huang et al., "Knowledge Distillation from a Stronger Teacher", arXiv:2205.10536, eq. 6-9.

Shape letters: B batch, C classes.
"""

import torch
from torch import Tensor, nn

from vadv_dist.objectives.base import at_least_fp32
from vadv_dist.objectives.distillation import Distillation, teaching_term
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.masking import counted_values, kept, mean_share
from vadv_dist.objectives.outputs import Rows, View

# Smallest norm of centred values; published code.
_EPS = 1e-8


def inter_class(teacher_BC: Tensor, student_BC: Tensor) -> Tensor:
    """1 - Pearson correlation of the class values of each row.

    With two classes the correlation is 1 or -1, with one it is 0: constants, which teach nothing.

    Args:
        teacher_BC, student_BC: class probabilities, [B, C].
    Returns:
        distances, [B], fp32 or wider.
    """
    teacher_BC, student_BC = at_least_fp32(teacher_BC), at_least_fp32(student_BC)
    return 1 - nn.functional.cosine_similarity(
        student_BC - student_BC.mean(dim=1, keepdim=True),
        teacher_BC - teacher_BC.mean(dim=1, keepdim=True),
        eps=_EPS,
    )


def intra_class(teacher_BC: Tensor, student_BC: Tensor, counts_B: Tensor) -> Tensor:
    """1 - Pearson correlation over rows, averaged over classes.

    Args:
        teacher_BC, student_BC: class probabilities, or one regression logit with C = 1, [B, C].
        counts_B: true for rows that count, [B].
    Returns:
        the distance, [], fp32 or wider; 0 where no row counts.
    """
    correlation_C = nn.functional.cosine_similarity(
        _centred(student_BC, counts_B), _centred(teacher_BC, counts_B), dim=0, eps=_EPS
    )
    return torch.where(counts_B.any(), 1 - correlation_C.mean(), 0.0)


class DIST(Distillation):
    """`inter_class` of each row and `intra_class` over the rows of all ranks, both times T².

    Of one regression logit, `intra_class` alone is defined: the correlation of the two predictions. Of two classes,
    `inter_class` is constant and left out.

    Args:
        temperature: T of the softmax; a regression logit has none.
        num_classes: C; 1 for a regression logit.
    """

    reads = "logit"

    def __init__(self, *, temperature: float, num_classes: int) -> None:
        super().__init__()
        self.temperature, self.num_classes = temperature, num_classes
        inter = teaching_term("dist_inter", "Correlation over classes", "inter")
        intra = teaching_term("dist_intra", "Correlation over rows", "intra")
        self.described = (inter, intra) if num_classes > 2 else (intra,)

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        teacher_BC, student_BC = self._values(teacher, rows), self._values(student, rows)
        terms = {"dist_inter": mean_share(inter_class(teacher_BC, student_BC), rows)} if self.num_classes > 2 else {}
        batch = GlobalBatch(rows)
        terms["dist_intra"] = batch.share(
            intra_class(batch.gather(teacher_BC), batch.gather(student_BC), batch.counted)
        )
        factor = 1.0 if self.num_classes == 1 else self.temperature**2
        return {name: term * factor for name, term in terms.items()}

    def _values(self, view: View, rows: Rows) -> Tensor:
        """Class probabilities, or the regression logit as [B, 1]."""
        if self.num_classes == 1:
            return counted_values(None if view.logit is None else view.logit[:, None], rows)
        return (counted_values(view.logit, rows) / self.temperature).softmax(dim=1)


def _centred(values_BC: Tensor, counts_B: Tensor) -> Tensor:
    values_BC = kept(values_BC, counts_B)
    mean_C = values_BC.sum(dim=0) / counts_B.sum().clamp(min=1)
    return torch.where(counts_B[:, None], values_BC - mean_C, 0.0)

"""FitNet: a regressor on the student's features predicts the teacher's.

Source: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, eq. 3.

Shape letters: B batch, D width of the teacher's features.
"""

from torch import Tensor

from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.base import at_least_fp32
from vadv_dist.objectives.distillation import Distillation, teaching_term
from vadv_dist.objectives.masking import counted_values, mean_share
from vadv_dist.objectives.outputs import Rows, View


def hint_distance(teacher_BD: Tensor, regressed_BD: Tensor) -> Tensor:
    """Mean squared distance of each row.

    The paper halves the squared norm; like torchdistill, this is the mean over the D features, which does not grow with
    the width.

    Args:
        teacher_BD: the teacher's features, [B, D].
        regressed_BD: the student's features after the regressor, [B, D].
    Returns:
        distances, [B], fp32 or wider.
    """
    return (at_least_fp32(teacher_BD) - at_least_fp32(regressed_BD)).square().mean(dim=-1)


class FitNet(Distillation):
    """`hint_distance` behind a linear regressor, averaged over rows.

    The paper trains up to the hint first and the whole student after it; like most comparisons, this trains both at
    once.

    Args:
        teacher_width, student_width: widths of the features.
    """

    reads = "features"
    described = (teaching_term("fitnet", "Regressed features", "FitNet"),)

    def __init__(self, *, teacher_width: int, student_width: int) -> None:
        super().__init__()
        self.regressor = head_layer(student_width, teacher_width)

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        regressed_BD = self.regressor(counted_values(student.features, rows))
        return {"fitnet": mean_share(hint_distance(counted_values(teacher.features, rows), regressed_BD), rows)}

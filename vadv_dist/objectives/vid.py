"""VID: maximise a variational bound of the mutual information of teacher's and student's features.

Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer", arXiv:1904.05835, eq. 4-6.

Shape letters: B batch, D width of the teacher's features.
"""

import math

import torch
from torch import Tensor, nn

from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.base import at_least_fp32
from vadv_dist.objectives.distillation import Distillation, teaching_term
from vadv_dist.objectives.masking import counted_values, mean_share
from vadv_dist.objectives.outputs import Rows, View

# Added to every variance; published code.
MIN_VARIANCE = 1e-5


def negative_log_likelihood(teacher_BD: Tensor, mean_BD: Tensor, variance_D: Tensor) -> Tensor:
    """Negative log-likelihood of the teacher's features under a Gaussian that the student predicts.

    As in the published code, the mean over the D features, without the constant log(2π) / 2; it may be negative.

    Args:
        teacher_BD: the teacher's features, [B, D].
        mean_BD: the mean predicted from the student's features, [B, D].
        variance_D: a variance for each feature, [D], above 0.
    Returns:
        half of (squared error / variance + log variance), averaged over features, [B], fp32 or wider.
    """
    variance_D = at_least_fp32(variance_D)
    squared_BD = (at_least_fp32(mean_BD) - at_least_fp32(teacher_BD)).square()
    return 0.5 * (squared_BD / variance_D + variance_D.log()).mean(dim=-1)


class VID(Distillation):
    """`negative_log_likelihood`, averaged over rows; three layers predict the mean, as in the published code.

    Args:
        teacher_width, student_width: widths of the features.
        initial_variance: of every feature, above `MIN_VARIANCE`.
    """

    reads = "features"
    described = (teaching_term("vid", "Likelihood of the teacher’s features", "VID"),)

    def __init__(self, *, teacher_width: int, student_width: int, initial_variance: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            head_layer(student_width, teacher_width),
            nn.ReLU(),
            head_layer(teacher_width, teacher_width),
            nn.ReLU(),
            head_layer(teacher_width, teacher_width),
        )
        # The inverse of softplus.
        start = math.log(math.expm1(initial_variance - MIN_VARIANCE))
        self.raw_variance = nn.Parameter(torch.full((teacher_width,), start))

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        mean_BD = self.mean(counted_values(student.features, rows))
        variance_D = nn.functional.softplus(at_least_fp32(self.raw_variance)) + MIN_VARIANCE
        return {
            "vid": mean_share(
                negative_log_likelihood(counted_values(teacher.features, rows), mean_BD, variance_D), rows
            )
        }

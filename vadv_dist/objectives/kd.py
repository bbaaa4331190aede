"""KD: the student's softened class probabilities approach the teacher's.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.

Shape letters: B batch, C classes.
"""

from torch import Tensor

from vadv_dist.objectives.base import at_least_fp32
from vadv_dist.objectives.distillation import Distillation, teaching_term
from vadv_dist.objectives.masking import counted_values, mean_share
from vadv_dist.objectives.outputs import Rows, View


def softened_divergence(teacher_BC: Tensor, student_BC: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) of each row.

    The factor T² keeps the gradient's size independent of the temperature. The paper minimises the cross-entropy, which
    differs by the teacher's entropy: without a gradient for the student, but not 0 for a perfect student. torchdistill
    leaves T² out where there is no cross-entropy with the label.

    Args:
        teacher_BC, student_BC: class logits, [B, C].
        temperature: T, above 0.
    Returns:
        divergences, [B], fp32 or wider.
    """
    teacher_BC = (at_least_fp32(teacher_BC) / temperature).log_softmax(dim=-1)
    student_BC = (at_least_fp32(student_BC) / temperature).log_softmax(dim=-1)
    return (teacher_BC.exp() * (teacher_BC - student_BC)).sum(dim=-1) * temperature**2


class KD(Distillation):
    """`softened_divergence`, averaged over rows.

    Args:
        temperature: T.
    """

    reads = "classes"
    described = (teaching_term("kd", "Softened class probabilities", "KD"),)

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        scores = counted_values(teacher.class_logits, rows), counted_values(student.class_logits, rows)
        return {"kd": mean_share(softened_divergence(*scores, self.temperature), rows)}

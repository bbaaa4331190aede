"""DKD: KD split into the label's class against all others, and the others among themselves.

Source: Zhao et al., "Decoupled Knowledge Distillation", arXiv:2203.08679, eq. 7.

Shape letters: B batch, C classes.
"""

import torch
from torch import Tensor

from vadv_dist.objectives.base import at_least_fp32
from vadv_dist.objectives.distillation import Distillation, teaching_term
from vadv_dist.objectives.kd import softened_divergence
from vadv_dist.objectives.masking import counted_values, mean_share
from vadv_dist.objectives.outputs import Rows, View


def target_divergence(teacher_BC: Tensor, student_BC: Tensor, class_B: Tensor, temperature: float) -> Tensor:
    """T² · KL of the probabilities of the label's class and of all others together (TCKD) of each row.

    Args:
        teacher_BC, student_BC: class logits, [B, C], at least two classes.
        class_B: index of the label's class, [B].
        temperature: T, above 0.
    Returns:
        divergences, [B], fp32 or wider; with two classes, those of `softened_divergence`.
    """
    return softened_divergence(
        _two_way(teacher_BC, class_B, temperature), _two_way(student_BC, class_B, temperature), temperature
    )


def non_target_divergence(teacher_BC: Tensor, student_BC: Tensor, class_B: Tensor, temperature: float) -> Tensor:
    """T² · KL of the probabilities among the classes that are not the label's (NCKD) of each row.

    Args:
        teacher_BC, student_BC: class logits, [B, C]; with two classes one is left, and the divergence is 0.
        class_B: index of the label's class, [B].
        temperature: T, above 0.
    Returns:
        divergences, [B], fp32 or wider.
    """
    return softened_divergence(_others(teacher_BC, class_B), _others(student_BC, class_B), temperature)


class DKD(Distillation):
    """`target_divergence` and, with three classes or more, `non_target_divergence`, averaged over rows.

    The published code raises the weight of both from 0 over the first epochs, which `begin_epoch` and `ramp_epochs` do
    here. The labels are indices of classes.

    Args:
        temperature: T.
        num_classes: C.
    """

    reads = "classes"

    def __init__(self, *, temperature: float, num_classes: int) -> None:
        super().__init__()
        self.temperature = temperature
        target = teaching_term("dkd_target", "Label’s class against others", "TCKD")
        others = teaching_term("dkd_non_target", "Classes that are not the label’s", "NCKD")
        self.described = (target, others) if num_classes > 2 else (target,)

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        scores = counted_values(teacher.class_logits, rows), counted_values(student.class_logits, rows)
        class_B = torch.where(rows.counted, rows.label.long(), 0)
        terms = {"dkd_target": target_divergence(*scores, class_B, self.temperature)}
        if len(self.described) == 2:
            terms["dkd_non_target"] = non_target_divergence(*scores, class_B, self.temperature)
        return {name: mean_share(divergence_B, rows) for name, divergence_B in terms.items()}


def _two_way(logits_BC: Tensor, class_B: Tensor, temperature: float) -> Tensor:
    """Logits [B, 2] whose softened softmax is the probability of the label's class and of the others."""
    target_B1 = at_least_fp32(logits_BC).gather(1, class_B[:, None])
    others_B1 = (_others(logits_BC, class_B) / temperature).logsumexp(dim=1, keepdim=True) * temperature
    return torch.cat([target_B1, others_B1], dim=1)


def _others(logits_BC: Tensor, class_B: Tensor) -> Tensor:
    """Logits of the other classes, [B, C-1]."""
    place = torch.arange(logits_BC.shape[1] - 1, device=logits_BC.device)
    return at_least_fp32(logits_BC).gather(1, place + (place >= class_B[:, None]))

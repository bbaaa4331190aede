"""AMID-like reconstruction: a multimodal teacher that shares information with the student without giving up its own.

Only the abstract and the introduction of AMID (Chen et al., arXiv:2306.07646) were at hand. They state three aims,
which this file turns into losses in its own way; the paper's equations, architectures and weights may be others.

* Maximise I(T; S), the information that teacher and student share, by a contrastive bound. Alone this has a short cut:
  a teacher that is as weak as the student.
* Maximise I(T; A) with a model A of the auxiliary modality likewise, which takes the short cut away.
* Minimise H(T | S), what the student leaves open about the teacher, by adversarial learning: an adversary asks
  questions about T, and learns those whose answers S predicts worst; a generator answers from S. The error bounds the
  entropy of the answers given S, and is 0 for every question only if T is a function of S.

Here A is the video teacher, which sees the auxiliary modality only, S the student, and T a fusion of both that this
module owns and that learns the label from them. The student's part of T's input is detached: I(T; S) and H(T | S) alone
train the student.

Shape letters: B rows of this rank, C classes, E width of an embedding.
"""

import math

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import Fp32Linear
from vadv_dist.objectives.adversary import Adversary
from vadv_dist.objectives.distillation import Distillation, teaching_term
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.masking import counted_values, mean_share
from vadv_dist.objectives.mutual_information import info_nce
from vadv_dist.objectives.outputs import Rows, View


class AMID(Distillation):
    """The AMID-like reconstruction.

    Contrastive terms compare the rows of all ranks; the others are means over rows.

    Args:
        teacher_width, student_width: widths of the features of both views.
        num_classes: C; 1 for a label that is a number.
        width: E.
        temperature: initial temperature of the contrastive bounds; it is learned.
        adversary_lr: learning rate of the adversary.
    """

    reads = "features"

    def __init__(
        self,
        *,
        teacher_width: int,
        student_width: int,
        num_classes: int = 1,
        width: int = 128,
        temperature: float = 0.07,
        adversary_lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.of_auxiliary = _two_layers(teacher_width, width, width)
        self.of_student = _two_layers(student_width, width, width)
        self.fusion = _two_layers(teacher_width + student_width, width, width)
        self.label_head = Fp32Linear(width, num_classes)
        self.generator = _two_layers(width, width, width)
        self.adversary = Adversary(width=width, lr=adversary_lr)
        # Of I(T; S) and of I(T; A).
        self.log_scale = nn.Parameter(torch.full((2,), math.log(1 / temperature)))
        self.described = (
            Term("amid_teacher", "Multimodal teacher to label", "t", "(r)", "psi", compares_label=True),
            teaching_term("amid_shared", "Bound of I(teacher; student)", "i(s)"),
            Term("amid_auxiliary", "Bound of I(teacher; video)", "i", "(a)", "psi"),
            teaching_term("amid_entropy", "Adversary’s bound of H(teacher | student)", "h(t|s)"),
        )

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`; `teacher` is the model of the auxiliary modality.

        Raises:
            ValueError: a view has no features.
        """
        video, text = counted_values(teacher.features, rows), counted_values(student.features, rows)
        fused = self.fusion(torch.cat([video, text.detach()], dim=-1))
        teacher_BE, student_BE, auxiliary_BE = map(unit, (fused, self.of_student(text), self.of_auxiliary(video)))
        batch, scale = GlobalBatch(rows), self.log_scale.exp().clamp(max=100.0)  # as CLIP limits it
        # Scaled before they are gathered: the gradient of a parameter comes from each rank's own rows.
        shared, kept = (
            info_nce(batch.gather(scale[bound] * teacher_BE), batch.gather(other_BE), batch.counted)
            for bound, other_BE in enumerate((student_BE, auxiliary_BE))
        )
        return {
            "amid_teacher": self._label_loss(self.label_head(fused), rows),
            "amid_shared": batch.share(shared),
            "amid_auxiliary": batch.share(kept),
            "amid_entropy": self._unanswered(teacher_BE, student_BE, rows),
        }

    def _label_loss(self, prediction_BC: Tensor, rows: Rows) -> Tensor:
        """This rank's share of T's squared error, or cross-entropy, []."""
        if self.num_classes == 1:
            losses_B = torch.where(rows.counted, prediction_BC.squeeze(-1) - rows.label, 0.0).square()
        else:
            losses_B = nn.functional.cross_entropy(prediction_BC, rows.label.long(), reduction="none")
        return mean_share(losses_B, rows)

    def _unanswered(self, teacher_BE: Tensor, student_BE: Tensor, rows: Rows) -> Tensor:
        """This rank's share of the mean squared error of the student's answers about the teacher, from 0 to 4, []."""
        errors_B = (self.adversary(teacher_BE) - unit(self.generator(student_BE))).square().sum(dim=-1)
        return mean_share(errors_B, rows)


def unit(values_BE: Tensor) -> Tensor:
    """Rows at unit length, so that no entropy falls by shrinking them, [B, E]."""
    return nn.functional.normalize(values_BE, dim=-1)


def _two_layers(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(Fp32Linear(in_features, hidden), nn.GELU(), Fp32Linear(hidden, out_features))

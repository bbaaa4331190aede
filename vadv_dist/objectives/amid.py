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
from vadv_dist.objectives.adversary import Adversary
from vadv_dist.objectives.base import at_least_fp32
from vadv_dist.objectives.distillation import Distillation
from vadv_dist.objectives.global_batch import GlobalBatch
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
        supervision, auxiliary, entropy: factors on the terms of T's label, of I(T; A) and of H(T | S).
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
        supervision: float = 1.0,
        auxiliary: float = 1.0,
        entropy: float = 1.0,
        adversary_lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.supervision, self.auxiliary, self.entropy = supervision, auxiliary, entropy
        self.of_auxiliary = _two_layers(teacher_width, width, width)
        self.of_student = _two_layers(student_width, width, width)
        self.fusion = _two_layers(teacher_width + student_width, width, width)
        self.head = nn.Linear(width, num_classes)
        self.generator = _two_layers(width, width, width)
        self.adversary = Adversary(width=width, lr=adversary_lr)
        # By bound; not below 0-dimensional: DeepSpeed cannot broadcast scalars.
        self.log_scale = nn.Parameter(torch.full((2,), math.log(1 / temperature)))
        self.described = (
            Term("amid_teacher", "Multimodal teacher to label", "t", "(r)", "psi", compares_label=True),
            Term("amid_shared", "Bound of I(teacher; student)", "i", "(s)", "psi", trains_student=True, distils=True),
            Term("amid_auxiliary", "Bound of I(teacher; video)", "i", "(a)", "psi"),
            Term(
                "amid_entropy", "Adversary for H(teacher | student)", "h", "", "psi", trains_student=True, distils=True
            ),
        )

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`; `teacher` is the model of the auxiliary modality.

        Raises:
            ValueError: a view has no features.
        """
        if teacher.features is None or student.features is None:
            raise ValueError("AMID reads the features of both views.")
        counted_B = rows.counted
        video, text = (
            torch.where(counted_B[:, None], at_least_fp32(view), 0.0) for view in (teacher.features, student.features)
        )
        fused = self.fusion(torch.cat([video, text.detach()], dim=-1))
        teacher_BE, student_BE, auxiliary_BE = map(unit, (fused, self.of_student(text), self.of_auxiliary(video)))
        batch, scale = GlobalBatch(rows), self.log_scale.exp().clamp(max=100.0)  # as CLIP limits it
        both = batch.gather(teacher_BE)
        shared = info_nce(both, batch.gather(student_BE), batch.counted, scale[:1])
        kept = info_nce(both, batch.gather(auxiliary_BE), batch.counted, scale[1:])
        return {
            "amid_teacher": self.supervision * self._label_loss(self.head(fused), rows),
            "amid_shared": batch.share(shared),
            "amid_auxiliary": self.auxiliary * batch.share(kept),
            "amid_entropy": self.entropy * self._unanswered(teacher_BE, student_BE, rows),
        }

    def _label_loss(self, prediction_BC: Tensor, rows: Rows) -> Tensor:
        """This rank's share of T's squared error, or cross-entropy, []."""
        if self.num_classes == 1:
            losses_B = (prediction_BC.squeeze(-1) - rows.label).square()
        else:
            losses_B = nn.functional.cross_entropy(prediction_BC, rows.label.long(), reduction="none")
        return torch.where(rows.counted, losses_B, 0.0).sum() / rows.num_video_rows

    def _unanswered(self, teacher_BE: Tensor, student_BE: Tensor, rows: Rows) -> Tensor:
        """This rank's share of the mean squared error of the student's answers about the teacher, from 0 to 4, []."""
        errors_B = (self.adversary(teacher_BE) - unit(self.generator(student_BE))).square().sum(dim=-1)
        return torch.where(rows.counted, errors_B, 0.0).sum() / rows.num_video_rows


def unit(values_BE: Tensor) -> Tensor:
    """Rows at unit length, so that no entropy falls by shrinking them, [B, E]."""
    return nn.functional.normalize(values_BE, dim=-1)


def _two_layers(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, hidden), nn.GELU(), nn.Linear(hidden, out_features))

"""Class logits of a student that predicts one number, for losses that compare class probabilities.

Shape letters: B batch, C classes.
"""

from dataclasses import replace

from torch import Tensor

from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.distillation import Distillation
from vadv_dist.objectives.masking import counted_values
from vadv_dist.objectives.outputs import Rows, View


class WithClassHead(Distillation):
    """A loss on class logits, with a linear head from the student's features to them.

    The softmax of a single regression logit is 1, whatever its value: such a loss needs class logits. The teacher's are
    those of its two prompts. The head is trained by this loss alone and is not part of the exported student.

    Args:
        inner: the loss.
        student_width: width of the student's features.
        threshold: lowest label of the second class.
    """

    reads = "features"

    def __init__(self, inner: Distillation, *, student_width: int, threshold: float) -> None:
        super().__init__()
        self.inner = inner
        self.threshold = threshold
        self.head = head_layer(student_width, 2)
        self.described = inner.described

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        student = replace(student, class_logits=self.head(counted_values(student.features, rows)))
        return self.inner(teacher, student, replace(rows, label=(rows.label >= self.threshold).long()))

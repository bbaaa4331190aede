"""The base class of rivals that compare how rows relate to each other in two feature spaces.

Shape letters: G rows of all ranks, D width, which may differ between teacher and student.
"""

from torch import Tensor

from vadv_dist.objectives.distillation import Distillation
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.masking import counted_values
from vadv_dist.objectives.outputs import Rows, View


class FeatureRelations(Distillation):
    """A loss over the features of all ranks' rows, without parameters."""

    reads = "features"

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        batch = GlobalBatch(rows)
        teacher_GD = batch.gather(counted_values(teacher.features, rows))
        student_GD = batch.gather(counted_values(student.features, rows))
        return {name: batch.share(loss) for name, loss in self.losses(teacher_GD, student_GD, batch.counted).items()}

    def losses(self, teacher_GD: Tensor, student_GD: Tensor, counts_G: Tensor) -> dict[str, Tensor]:
        """Compute the losses by name.

        Args:
            teacher_GD, student_GD: features, [G, D].
            counts_G: true for rows that count, [G].
        Returns:
            means over the rows that count, each [], fp32 or wider; 0 where none counts.
        """
        raise NotImplementedError

"""A rival of step distillation for sentiment: the same supervised terms, and another loss from teacher to student."""

from torch import Tensor

from vadv_dist.objectives.base import Objective
from vadv_dist.objectives.distillation import Distillation
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs, View
from vadv_dist.objectives.step_distillation import loss_terms, supervised_terms


class RivalObjective(Objective):
    """The supervised terms of the five-term objective (eq. 10-12) and those of a rival.

    Args:
        distillation: the rival.
        has_prompts: whether the teacher has a prompt logit.
        threshold: lowest positive label; None if labels are classes.
        detach_targets: block the gradient of the rival's terms into the teacher.
    """

    reads_features = True

    def __init__(
        self,
        distillation: Distillation,
        *,
        has_prompts: bool,
        threshold: float | None = 0.0,
        detach_targets: bool = True,
    ) -> None:
        super().__init__()
        self.distillation = distillation
        self.threshold = threshold
        self.detach_targets = detach_targets
        supervised = supervised_terms(threshold)
        self.described = (*(supervised if has_prompts else supervised[:2]), *distillation.described)

    def forward(self, outputs: TeacherStudentOutputs, rows: Rows) -> dict[str, Tensor]:
        """Compute the unweighted terms of one micro-batch, each []."""
        terms = loss_terms(
            outputs,
            rows.label,
            valid_B=rows.valid,
            has_video_B=rows.has_video,
            num_rows=rows.num_rows,
            num_video_rows=rows.num_video_rows,
            threshold=self.threshold,
            step1=False,
            step2=False,
        )
        teacher = detached(outputs.teacher) if self.detach_targets else outputs.teacher
        return terms | self.distillation(teacher, outputs.student, rows.compared or rows)


def detached(view: View) -> View:
    """The same view without gradients."""
    values = (view.logit, view.features, view.class_logits)
    return View(*(None if value is None else value.detach() for value in values))

"""What teacher and student are trained towards: pure functions on named outputs."""

from vadv_dist.objectives.outputs import TeacherStudentOutputs
from vadv_dist.objectives.step_distillation import TERMS, loss_terms, weighted_total

__all__ = ["TERMS", "TeacherStudentOutputs", "loss_terms", "weighted_total"]

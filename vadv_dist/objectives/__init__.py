"""Training objectives of teacher and student: modules of named loss terms."""

from vadv_dist.objectives.base import Objective, weighted_total
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs
from vadv_dist.objectives.step_distillation import StepDistillation, loss_terms

__all__ = ["Objective", "Rows", "StepDistillation", "TeacherStudentOutputs", "loss_terms", "weighted_total"]

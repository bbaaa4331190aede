"""Where two models are right on different clips.

Shape letters: R clips.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.paired import Interval, paired_bootstrap


@dataclass(frozen=True)
class Discordance:
    """A teacher and a student on the same clips.

    Attributes:
        clips: number of clips that both have predicted.
        both, only_teacher, only_student, neither: how many of them are right in which model.
        right: share of clips that the teacher has right minus the student's share, with its interval over clips.
        error: mean error of the student minus the teacher's, with its interval over clips.
        teacher_ahead: mean error of the student minus the teacher's on the clips that only the teacher has right; None
            without such clips.
        student_ahead: mean error of the teacher minus the student's on the clips that only the student has right.
    """

    clips: int
    both: int
    only_teacher: int
    only_student: int
    neither: int
    right: Interval
    error: Interval
    teacher_ahead: float | None
    student_ahead: float | None


def discordance(
    student_error_R: npt.ArrayLike,
    teacher_error_R: npt.ArrayLike,
    student_right_R: npt.ArrayLike,
    teacher_right_R: npt.ArrayLike,
) -> Discordance | None:
    """Compare a student with its teacher, clip by clip.

    Args:
        student_error_R, teacher_error_R: error of each model on each clip; NaN without a prediction.
        student_right_R, teacher_right_R: whether the prediction counts as right.
    Returns:
        None if no clip has a prediction of both.
    """
    student, teacher = np.asarray(student_error_R, np.float64), np.asarray(teacher_error_R, np.float64)
    known = np.isfinite(student) & np.isfinite(teacher)
    if not known.any():
        return None
    student, teacher = student[known], teacher[known]
    student_right = np.asarray(student_right_R, np.bool_)[known]
    teacher_right = np.asarray(teacher_right_R, np.bool_)[known]
    only_teacher, only_student = teacher_right & ~student_right, student_right & ~teacher_right
    lead = student - teacher
    return Discordance(
        clips=len(lead),
        both=int((student_right & teacher_right).sum()),
        only_teacher=int(only_teacher.sum()),
        only_student=int(only_student.sum()),
        neither=int((~student_right & ~teacher_right).sum()),
        right=paired_bootstrap(teacher_right, student_right, seed=0, num_samples=2000),
        error=paired_bootstrap(student, teacher, seed=0, num_samples=2000),
        teacher_ahead=float(lead[only_teacher].mean()) if only_teacher.any() else None,
        student_ahead=float(-lead[only_student].mean()) if only_student.any() else None,
    )

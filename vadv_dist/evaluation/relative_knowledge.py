"""How much a teacher knows compared with its student."""

import math


def relative_knowledge(teacher: float, student: float) -> float:
    """Explained variance of the teacher relative to the student's, at most 1: min(1, r²(teacher) / r²(student)).

    A model that is correlated negatively with the label, or predicts a constant, knows nothing. A teacher that knows
    nothing gives 0, whatever the student.

    Args:
        teacher, student: Pearson's correlation of each one's predictions with the label; NaN for a constant.
    """
    return relative_skill(teacher, student) ** 2


def relative_skill(teacher: float, student: float) -> float:
    """A measure of the teacher relative to the student's, at most 1: min(1, teacher / student).

    Args:
        teacher, student: measures that are 0 for a constant; one below 0 or NaN counts as 0. A teacher that knows
            nothing gives 0, whatever the student.
    """
    teacher, student = (0.0 if math.isnan(value) else max(0.0, value) for value in (teacher, student))
    return 1.0 if 0 < teacher >= student else teacher / student if student > 0 else 0.0

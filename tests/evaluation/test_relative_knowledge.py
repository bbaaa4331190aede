"""The guard's ratio, at its limits."""

import math

import pytest

from vadv_dist.evaluation.relative_knowledge import relative_knowledge


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (0.3, 0.6, 0.25),
        (0.6, 0.6, 1.0),
        (0.7, 0.6, 1.0),
        (0.0, 0.6, 0.0),
        (-0.6, 0.6, 0.0),  # a teacher that is wrong does not teach
        (math.nan, 0.6, 0.0),
        (0.3, 0.0, 1.0),
        (0.3, -0.5, 1.0),
        (0.3, math.nan, 1.0),
        (0.0, 0.0, 0.0),
        (math.nan, math.nan, 0.0),
        (1e-200, 1.0, 0.0),
    ],
)
def test_relative_knowledge_is_between_0_and_1(teacher: float, student: float, expected: float) -> None:
    assert relative_knowledge(teacher, student) == pytest.approx(expected, abs=1e-12)

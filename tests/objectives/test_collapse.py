"""Weights that make the student's own term irrelevant."""

import math

import pytest

from vadv_dist.objectives.collapse import find_collapse


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"text": 0.22, "tie": 2432.0, "video": 0.5}, ("tie", pytest.approx(2432 / 0.22))),
        ({"text": 0.01, "tie": 0.99}, None),
        ({"text": 0.01, "tie": 1.0}, ("tie", pytest.approx(100.0))),
        ({"text": 10.0, "tie": 1.0}, None),
        ({"text": 0.0, "tie": 1.0}, ("tie", math.inf)),
        ({"text": 0.0, "tie": 0.0}, None),
        ({"video": 1.0, "tie": 1e6}, None),
        ({}, None),
    ],
)
def test_a_hundredfold_weight_is_a_collapse(weights: dict, expected: tuple | None) -> None:
    assert find_collapse(weights, "text") == expected

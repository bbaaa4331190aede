"""Sequences of any length as a fixed number of frames."""

import numpy as np
import pytest

from vadv_dist.data.readers.sequences import Framing, trim_zeros, zero_non_finite
from vadv_dist.errors import UserError

ROWS = np.arange(6.0)[:, None] * [1, 10]


@pytest.mark.parametrize(
    ("frames", "pool", "expected"),
    [
        (1, "mean", [2.5]),
        (2, "mean", [1, 4]),
        (3, "mean", [0.5, 2.5, 4.5]),
        (4, "mean", [0.5, 1.5, 3.5, 4.5]),  # parts of 1.5 rows: both overlapping rows count
        (6, "mean", [0, 1, 2, 3, 4, 5]),
        (12, "mean", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (1, "sample", [3]),
        (2, "sample", [1, 4]),
        (3, "sample", [1, 3, 5]),
        (12, "sample", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
    ],
)
def test_frames_are_the_means_or_middles_of_equal_parts(frames: int, pool: str, expected: list[float]) -> None:
    framed = Framing(frames, pool).apply(ROWS)
    np.testing.assert_allclose(framed, np.array(expected)[:, None] * [1, 10])


@pytest.mark.parametrize("length", [1, 2, 7, 50])
@pytest.mark.parametrize("pool", ["mean", "sample"])
def test_a_constant_is_preserved_for_any_length(length: int, pool: str) -> None:
    np.testing.assert_array_equal(Framing(8, pool).apply(np.full((length, 3), 2.5)), np.full((8, 3), 2.5))


def test_a_huge_value_stays_in_its_part() -> None:
    values = np.array([[1e300], [1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(Framing(4).apply(values), values)


def test_only_zeros_at_the_ends_are_padding() -> None:
    values = np.array([[0, 0], [1, 0], [0, 0], [0, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(trim_zeros(values), values[1:4])
    assert len(trim_zeros(np.zeros((4, 2)))) == 0


def test_non_finite_values_become_zero_and_are_counted() -> None:
    cleaned, count = zero_non_finite(np.array([[1, -np.inf], [np.nan, 2], [np.inf, 3]], np.float32))
    np.testing.assert_array_equal(cleaned, [[1, 0], [0, 2], [0, 3]])
    assert count == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "--frames is 0"),
        ({"frames": 200_000}, "--frames is 200000, expected a number from 1 to 100,000"),
        ({"pool": "max"}, "--pool is 'max', expected one of mean, sample"),
        ({"non_finite": "keep"}, "--non-finite is 'keep'"),
        ({"dtype": "int8"}, "--dtype is 'int8'"),
    ],
)
def test_unknown_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Framing(**options)

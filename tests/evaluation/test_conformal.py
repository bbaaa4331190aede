"""Intervals of split conformal prediction: the finite-sample guarantee, and what too few clips do not support."""

import math

import numpy as np
import pytest
from scipy import stats

from vadv_dist.errors import UserError
from vadv_dist.evaluation.conformal import ErrorQuantiles


@pytest.mark.parametrize("clips", [9, 20, 99, 229])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_is_that_of_the_order_statistic(clips: int, level: float) -> None:
    # With n calibration errors, the coverage of new clips is Beta(k, n + 1 - k) with k = ceil((n + 1) * level).
    chance, covered = np.random.default_rng(0), []
    for _ in range(2000):
        width = ErrorQuantiles.of(np.abs(chance.standard_t(3, clips))).half_width(level)
        covered.append(2 * stats.t(3).cdf(width) - 1)
    rank = math.ceil((clips + 1) * level)
    expected = stats.beta(rank, clips + 1 - rank)
    assert expected.mean() >= level
    assert np.mean(covered) == pytest.approx(expected.mean(), abs=4 * expected.std() / math.sqrt(2000))


def test_levels_are_rounded_up_to_percents() -> None:
    quantiles = ErrorQuantiles.of(np.arange(1, 100))
    assert [quantiles.half_width(level) for level in (0.9, 0.895, 0.901, 0.29)] == [90, 90, 91, 29]


@pytest.mark.parametrize(
    ("errors", "level", "message"),
    [
        (range(9), 0.95, r"interval 0\.95 is out of range: 9 validation clips support 0\.01 to 0\.9"),
        (range(99), 1.0, r"support 0\.01 to 0\.99"),
        (range(99), 90, "interval 90 is out of range"),
        (range(99), math.nan, "interval nan is out of range"),
        ([], 0.5, "support no level at all"),
    ],
)
def test_levels_without_enough_clips_are_refused(errors, level: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ErrorQuantiles.of(list(errors)).half_width(level)

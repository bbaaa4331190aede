"""The interval over seeds and clips: by hand, compared with Student's, and its coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from vadv_dist.evaluation.crossed import crossed_interval


def test_three_seeds_and_four_clips_by_hand() -> None:
    # Seed effects -1, 0, 1, clip effects -3, -1, 1, 3, and a residual of ±1 that sums to 0 along both.
    rest = np.array([[1, -1, 1, -1], [-1, 1, -1, 1], [0, 0, 0, 0]])
    difference = 2.0 + np.array([[-1], [0], [1]]) + np.array([-3, -1, 1, 3]) + rest
    # Mean squares: seeds 4 · 2 / 2 = 4, clips 3 · 20 / 3 = 20, residual 8 / 6 = 4/3; variance of the mean
    # (4 + 20 - 4/3) / 12; degrees of freedom (68/3)² / (4² / 2 + 20² / 3 + (4/3)² / 6) = 3.6276.
    freedom = (68 / 3) ** 2 / (8 + 400 / 3 + 16 / 54)
    assert freedom == pytest.approx(3.6276, abs=1e-3)
    reach = math.sqrt(68 / 36) * stats.t.ppf(0.975, freedom)
    mean, low, high = crossed_interval(difference)
    assert mean == pytest.approx(2.0)
    assert (low, high) == pytest.approx((2 - reach, 2 + reach))
    # With four seeds of three clips Student's interval over the seeds is wider: 20 / 12 under the root.
    student = math.sqrt(20 / 12) * stats.t.ppf(0.975, 3)
    assert crossed_interval(difference.T) == pytest.approx((mean, 2 - student, 2 + student))


def test_without_clip_effects_the_interval_is_students_over_seeds() -> None:
    seeds = np.array([1.0, 2.0, 3.0])
    mean, low, high = crossed_interval(np.repeat(seeds[:, None], 5, axis=1))
    assert mean == 2
    assert (low, high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)  # t(0.975, 2) / sqrt(3)


@pytest.mark.parametrize("of_seed", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("of_clip", [0.0, 0.3])
def test_coverage_matches_the_confidence(of_seed: float, of_clip: float) -> None:
    rng, truth, tries = np.random.default_rng(0), 0.05, 400
    held = held_by_student = 0
    for _ in range(tries):
        difference = truth + rng.normal(0, of_seed, (3, 1)) + rng.normal(0, of_clip, 100) + rng.normal(0, 0.3, (3, 100))
        interval = crossed_interval(difference)
        means = difference.mean(axis=1)
        reach = stats.t.ppf(0.975, 2) * means.std(ddof=1) / math.sqrt(3)
        assert interval.high - interval.low >= 2 * reach - 1e-12
        held += interval.low <= truth <= interval.high
        held_by_student += abs(means.mean() - truth) <= reach
    assert 0.92 <= held / tries <= 0.99
    if of_clip and not of_seed:  # which the interval over seeds ignores
        assert held_by_student / tries < 0.9


@pytest.mark.parametrize(
    ("difference", "arguments", "message"),
    [
        ([[1.0, 2.0]], {}, r"shape \[1, 2\]"),
        ([[1.0], [2.0]], {}, r"shape \[2, 1\]"),
        ([1.0, 2.0], {}, r"shape \[2\]"),
        ([[1.0, math.nan], [1.0, 2.0]], {}, "1 of 4 differences are not finite"),
        ([[1.0, 2.0], [1.0, 2.0]], {"confidence": 95}, "confidence is 95"),
    ],
)
def test_invalid_input_is_refused(difference, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        crossed_interval(difference, **arguments)

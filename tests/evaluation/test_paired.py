import numpy as np
import pytest
from scipy import stats

from vadv_dist.evaluation.paired import paired_bootstrap


def test_equals_scipys_percentile_bootstrap_within_resampling_noise():
    rng = np.random.default_rng(0)
    a, b = rng.gamma(2.0, 0.4, 300), rng.gamma(2.0, 0.35, 300)
    ours = paired_bootstrap(a, b, seed=1, num_samples=20_000)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert ours.mean == pytest.approx((a - b).mean(), abs=1e-12)
    # Both quantiles have a standard error of about 0.0006 here.
    assert ours.low == pytest.approx(theirs.low, abs=4e-3)
    assert ours.high == pytest.approx(theirs.high, abs=4e-3)


def test_common_difficulty_of_clips_cancels():
    hard = np.random.default_rng(0).uniform(0, 100, 50)
    interval = paired_bootstrap(hard + 0.25, hard, seed=0, num_samples=200)
    np.testing.assert_allclose(interval, 0.25, atol=1e-12)
    assert interval.excludes_zero


def test_two_clips_have_three_possible_means():
    mean, low, high = paired_bootstrap([0.0, 2.0], [0.0, 0.0], seed=0)
    assert (mean, low, high) == (1.0, 0.0, 2.0)
    # A quarter of the resamples is at 0, a quarter at 2, and half at 1.
    assert paired_bootstrap([0.0, 2.0], [0.0, 0.0], seed=0, confidence=0.4)[1:] == (1.0, 1.0)


def test_swapping_the_models_mirrors_the_interval():
    rng = np.random.default_rng(3)
    a, b = rng.random(40), rng.random(40)
    forth, back = paired_bootstrap(a, b, seed=5), paired_bootstrap(b, a, seed=5)
    np.testing.assert_allclose([forth.mean, forth.low, forth.high], [-back.mean, -back.high, -back.low], atol=1e-12)


def test_coverage_matches_the_confidence():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        differences = rng.normal(0.3, 1.0, 80)
        interval = paired_bootstrap(differences, np.zeros(80), seed=seed, num_samples=400)
        covered += interval.low <= 0.3 <= interval.high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_chunk_size_does_not_change_the_interval(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.random(64), rng.random(64)
    whole = paired_bootstrap(a, b, seed=9, num_samples=128)
    monkeypatch.setattr("vadv_dist.evaluation.paired._CHUNK_VALUES", 64 * 5)
    assert paired_bootstrap(a, b, seed=9, num_samples=128) == whole


@pytest.mark.parametrize(
    ("a", "b", "arguments", "message"),
    [
        ([], [], {}, "no clips"),
        ([1.0, 2.0], [1.0], {}, r"shape \[2\], errors_b \[1\]"),
        ([[1.0]], [[1.0]], {}, r"expected \[R\]"),
        ([1.0, float("nan")], [1.0, 1.0], {}, "1 of 2 differences are not finite"),
        ([1.0], [1.0], {"num_samples": 0}, "num_samples is 0"),
        ([1.0], [1.0], {"confidence": 95}, "confidence is 95"),
    ],
)
def test_errors_that_cannot_be_paired_are_refused(a, b, arguments, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(a, b, seed=0, **arguments)

"""The interval over seeds and clips: it agrees with mean squares where they exist, and covers what it says."""

import numpy as np
import pytest

from vadv_dist.evaluation.crossed import crossed_interval
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.seeds_and_clips import clip_resamples, resampled_metrics, seeds_and_clips


def drawn(rng: np.random.Generator, seeds: int, clips: int, of_seed: float, of_clip: float) -> np.ndarray:
    """Errors with effects of seed and clip around 1, [S, R]."""
    effects = 1 + of_seed * rng.normal(size=(seeds, 1)) + of_clip * rng.normal(size=clips)
    return effects + 0.5 * rng.normal(size=(seeds, clips))


def interval_of(errors_SR: np.ndarray, rows_BR: np.ndarray):
    resampled_BS = np.stack([errors[rows_BR].mean(axis=1) for errors in errors_SR], axis=1)
    return seeds_and_clips(errors_SR.mean(axis=1), resampled_BS, num_clips=errors_SR.shape[1])


@pytest.mark.parametrize(("of_seed", "of_clip"), [(0.3, 0.0), (0.0, 1.0), (0.05, 0.7)])
def test_interval_of_a_mean_over_clips_is_that_of_mean_squares(of_seed: float, of_clip: float) -> None:
    errors_SR = drawn(np.random.default_rng(3), 5, 400, of_seed, of_clip)
    resampled = interval_of(errors_SR, clip_resamples(400, seed=1, num_samples=4000))
    exact = crossed_interval(errors_SR)
    assert resampled.mean == pytest.approx(exact.mean)
    assert resampled.high - resampled.low == pytest.approx(exact.high - exact.low, rel=0.08)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    """600 samples of five seeds and 60 clips: the error of the share is below 0.9 points."""
    rng, rows_BR = np.random.default_rng(5), clip_resamples(60, seed=2, num_samples=200)
    covered, narrow = 0, 0
    for _ in range(600):
        errors_SR = drawn(rng, 5, 60, 0.15, 0.8)
        found = interval_of(errors_SR, rows_BR)
        covered += found.low <= 1 <= found.high
        # Quantiles of the five seeds alone, as a comparison that the test can tell from the above.
        means = errors_SR.mean(axis=1)[rng.integers(0, 5, (200, 5))].mean(axis=1)
        narrow += np.quantile(means, 0.025) <= 1 <= np.quantile(means, 0.975)
    assert 0.935 <= covered / 600 <= 0.985
    assert narrow / 600 < 0.8


def test_one_seed_has_the_interval_of_the_clips_and_none_without_them() -> None:
    errors_SR = drawn(np.random.default_rng(3), 1, 300, 0.0, 1.0)
    found = interval_of(errors_SR, clip_resamples(300, seed=1, num_samples=4000))
    error = errors_SR.std(ddof=1) / np.sqrt(300)
    assert found.high - found.mean == pytest.approx(1.968 * error, rel=0.05)  # Student's quantile for 299
    assert seeds_and_clips([0.7]) is None


def test_without_resamples_it_is_students_interval() -> None:
    found = seeds_and_clips([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2
    assert found.high == pytest.approx(2 + 4.3027 / np.sqrt(3), rel=1e-4)
    same = seeds_and_clips([1.0, 1.0], np.ones((9, 2)), num_clips=9)
    assert same == (1, 1, 1)


def test_metrics_that_are_no_means_are_scored_on_each_resample() -> None:
    rng = np.random.default_rng(1)
    label = rng.uniform(-3, 3, 200)
    prediction = label + rng.normal(size=200)
    scale, rows_BR = LabelScale(), clip_resamples(200, seed=4, num_samples=50)
    found = resampled_metrics(lambda rows: scale.score(prediction[rows], label[rows]), rows_BR)
    assert found["corr"][7] == pytest.approx(np.corrcoef(prediction[rows_BR[7]], label[rows_BR[7]])[0, 1])
    assert set(found) == {metric.key for metric in scale.metrics}


@pytest.mark.parametrize(
    ("values", "resampled", "said"),
    [([], None, "at least one seed"), ([1.0, np.nan], None, "finite"), ([1.0, 2.0], np.ones((5, 3)), r"\[B, 2\]")],
)
def test_impossible_arguments_are_refused(values, resampled, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        seeds_and_clips(values, resampled, num_clips=5)

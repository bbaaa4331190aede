from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from sklearn.calibration import calibration_curve

from vadv_dist.evaluation.reliability import class_reliability, mean_interval, share_interval, value_reliability


def guo_ece(confidence, right, bins=15):
    """Expected calibration error as in the code of Guo et al. (arXiv:1706.04599)."""
    edges, total = np.linspace(0, 1, bins + 1), 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += abs(confidence[inside].mean() - right[inside].mean()) * inside.mean()
    return total


@pytest.mark.parametrize("classes", [2, 5])
def test_reliability_of_classes_is_that_of_scikit_learn_and_of_guo(classes):
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.full(classes, 0.6), 500)
    label = np.array([rng.choice(classes, p=0.7 * p + 0.3 / classes) for p in probability])
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == label
    found = class_reliability(probability, label)
    observed, predicted = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose([each.observed.mean for each in found.bins], observed)
    np.testing.assert_allclose([each.predicted for each in found.bins], predicted)
    assert sum(each.clips for each in found.bins) == 500
    assert found.gap == pytest.approx(guo_ece(confidence, right))
    assert found.gap > 0.05


def test_a_probability_on_the_edge_of_two_bins_is_in_the_lower_one():
    probability = np.array([[0.6, 0.4], [0.61, 0.39]])
    found = class_reliability(probability, [0, 1], bins=10)
    assert [(each.clips, each.observed.mean) for each in found.bins] == [(1, 1.0), (1, 0.0)]
    assert found.gap == pytest.approx((0.4 + 0.61) / 2)


def test_certain_and_right_has_no_calibration_error():
    found = class_reliability([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    assert found.gap == 0
    assert [each.clips for each in found.bins] == [2]


def test_reliability_of_values_has_means_of_bins_with_equal_numbers_of_clips():
    rng = np.random.default_rng(1)
    prediction = rng.permutation(np.linspace(-3, 3, 230))
    label = 0.5 * prediction + rng.normal(0, 0.3, 230)
    found = value_reliability(prediction, label)
    assert [each.clips for each in found.bins] == [23] * 10
    edges = np.quantile(prediction, np.linspace(0, 1, 11))
    means = stats.binned_statistic(prediction, [prediction, label], bins=edges).statistic
    np.testing.assert_allclose([each.predicted for each in found.bins], means[0])
    np.testing.assert_allclose([each.observed.mean for each in found.bins], means[1])
    assert found.gap == pytest.approx(np.abs(means[0] - means[1]).mean())
    for each in found.bins:
        assert each.observed.low < each.observed.mean < each.observed.high


def test_equal_predictions_are_in_one_bin():
    prediction = np.repeat([-1.0, 0.5, 2.0], [10, 80, 10])
    found = value_reliability(prediction, prediction + 0.25)
    assert [(each.clips, each.predicted) for each in found.bins] == [(10, -1.0), (80, 0.5), (10, 2.0)]
    assert found.gap == pytest.approx(0.25)


@pytest.mark.parametrize("prediction", [np.zeros(500), np.arange(19.0), [1.0]])
def test_there_is_no_reliability_without_two_bins(prediction):
    assert value_reliability(prediction, np.zeros(len(prediction))) is None


def test_constant_labels_have_reliability():
    found = value_reliability(np.arange(20.0), np.full(20, 3.0))
    assert [each.observed for each in found.bins] == [(3.0, 3.0, 3.0)] * 2


@pytest.mark.parametrize(("hits", "clips"), [(0, 7), (7, 7), (3, 10), (180, 200)])
def test_the_interval_of_a_share_is_scipys(hits, clips):
    expected = stats.binomtest(hits, clips).proportion_ci(0.95, method="wilson")
    share, low, high = share_interval(hits, clips)
    assert share == hits / clips
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_interval_of_a_mean_is_about_scipys_bootstrap():
    values = np.random.default_rng(2).gamma(2.0, 0.5, 300)
    expected = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=3).confidence_interval
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)

"""Almost Stochastic Order: by hand, compared with deepsig, and what it means."""

from itertools import product

import numpy as np
import pytest

from vadv_dist.evaluation.significance import aso, violation_ratio


@pytest.fixture(scope="module")
def deepsig():
    """Its module of this test; the package is GPL and is only compared with."""
    return pytest.importorskip("deepsig.aso")


def deepsig_confidence(num_comparisons):
    """The confidence that deepsig makes of 0.95, which is Bonferroni's for one and two comparisons only."""
    return 0.95 + 0.05 / num_comparisons if num_comparisons > 1 else 0.95


def normal_pairs(count, size, location):
    """Scores of deepsig's second and third example."""
    rng = np.random.RandomState(1234)
    return tuple([rng.normal(*of, size) for _ in range(count)] for of in ((location, 0.8), (0, 1)))


def test_violation_ratio_by_hand():
    # Sorted pairs (1, 0) and (2, 4): B is above by 2 in one of two quantiles; 4 / (1 + 4).
    assert violation_ratio([2, 1], [0, 4]) == pytest.approx(0.8)
    assert violation_ratio([0, 4], [2, 1]) == pytest.approx(0.2)
    # Two and three scores: B - A is 1 up to 1/3, 2 up to 1/2, -1 up to 2/3, then 2.
    # (1/3 + 4/6 + 4/3) / (1/3 + 4/6 + 1/6 + 4/3) = 14/15.
    assert violation_ratio([3, 0], [5, 1, 2]) == pytest.approx(14 / 15)
    assert violation_ratio([1, 2, 2], [2, 1, 2]) == 0.5


@pytest.mark.parametrize(("num_a", "num_b"), [(5, 5), (5, 7), (1, 4), (12, 10)])
def test_violation_ratio_equals_deepsigs_on_a_fine_grid(deepsig, num_a, num_b):
    rng = np.random.default_rng(num_a)
    a, b = rng.normal(0.4, 1, num_a), rng.normal(0, 0.7, num_b)
    theirs = deepsig.compute_violation_ratio(a, b, dt=1e-4)
    assert violation_ratio(a, b) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize(("num_a", "num_b"), [(5, 5), (4, 6)])
def test_bound_equals_deepsigs_on_random_samples(deepsig, num_a, num_b):
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.9, 1, num_a), rng.normal(0, 0.7, num_b)
    theirs = deepsig.aso(a, b, num_bootstrap_iterations=500, show_progress=False, seed=3)
    assert 0.05 < theirs < 0.95
    # Standard deviations of 500 and 1,000 bootstraps.
    assert aso(a, b, seed=3) == pytest.approx(theirs, abs=0.05)


def test_bounds_of_deepsigs_examples():
    """Values of deepsig 1.2.8 with its 1,000 bootstraps, which take it seconds each.

    They are those in its documentation, except the second example's, which version 1.2.8 does not reproduce.
    """
    (a,), (b,) = normal_pairs(1, 5, 0.9)
    assert aso(a, b, seed=0) == pytest.approx(0.2249, abs=0.02)

    a_3, b_3 = normal_pairs(3, 5, 0.3)
    found = [aso(a, b, seed=0, confidence=deepsig_confidence(3)) for a, b in zip(a_3, b_3, strict=True)]
    assert found == pytest.approx([0.8067, 1.0, 0.6314], abs=0.03)

    a_3, b_3 = normal_pairs(3, 40, 0.3)
    found = [aso(a, b, seed=0, confidence=deepsig_confidence(9)) for a, b in product(a_3, b_3)]
    # Its grid has five points in each of 40 quantiles, of which it does not count the first one's violation.
    expected = [0.3832, 0.0719, 0.9153, 0.5273, 0.1495, 1.0, 0.6100, 0.2239, 1.0]
    assert found == pytest.approx(expected, abs=0.05)

    rng = np.random.RandomState(1234)
    scores = [rng.normal(location, 0.8, 5) for location in (0.1, 0.15, 0.2)]
    found = [[aso(a, b, seed=0, confidence=deepsig_confidence(3)) for b in scores] for a in scores]
    expected = [[1.0, 0.9262, 1.0], [1.0, 1.0, 1.0], [0.8208, 0.7305, 1.0]]
    assert np.array(found) == pytest.approx(np.array(expected), abs=0.03)


def test_scores_all_above_dominate_and_the_reverse_does_not():
    a, b = [3.0, 2.5, 2.8], [1.0, 2.0, 2.2]
    assert aso(a, b, seed=0) == 0
    assert aso(b, a, seed=0) == 1


def test_more_comparisons_need_more_evidence():
    (a,), (b,) = normal_pairs(1, 5, 0.9)
    bounds = [aso(a, b, seed=0, num_comparisons=n) for n in (1, 2, 10, 45)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[1]
    # Bonferroni: ten comparisons at 95 % are one at 99.5 %.
    assert bounds[2] == pytest.approx(aso(a, b, seed=0, confidence=0.995))


@pytest.mark.parametrize(("shift", "below_half", "below_fifth"), [(0.0, 0.19, 0.05), (1.5, 0.93, 0.72)])
def test_rates_of_the_docstring(shift, below_half, below_fifth):
    rng = np.random.default_rng(1)
    found = np.array([aso(rng.normal(shift, 1, 5), rng.normal(0, 1, 5), seed=i) for i in range(1000)])
    assert (found < 0.5).mean() == pytest.approx(below_half, abs=0.04)
    assert (found < 0.2).mean() == pytest.approx(below_fifth, abs=0.04)


def test_same_seed_same_bound_in_any_chunks(monkeypatch):
    (a,), (b,) = normal_pairs(1, 5, 0.9)
    assert aso(a, b, seed=5) == aso(a, b, seed=5) != aso(a, b, seed=6)
    from vadv_dist.evaluation import significance

    whole = aso(a, b, seed=5)
    monkeypatch.setattr(significance, "_CHUNK_VALUES", 70)
    assert aso(a, b, seed=5) == pytest.approx(whole, abs=0.03)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([], [1.0], {}, r"scores_a has shape \[0\]"),
        ([1.0], [[1.0]], {}, r"scores_b has shape \[1, 1\]"),
        ([1.0, float("nan")], [1.0], {}, "scores_a has 1 of 2 values that are not finite"),
        ([1.0], [1.0], {"num_comparisons": 0}, "num_comparisons is 0"),
        ([1.0], [1.0], {"num_bootstraps": 1}, "num_bootstraps is 1"),
        ([1.0], [1.0], {"confidence": 1.0}, "confidence is 1.0"),
    ],
)
def test_bad_input_is_named(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        aso(a, b, seed=0, **options)

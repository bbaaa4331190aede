import importlib.util
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from vadv_dist.evaluation.classes import SEVEN
from vadv_dist.evaluation.label_scale import LabelScale

MOSI, SIMS, STARS = LabelScale(), LabelScale(-1.0, 1.0), LabelScale(1.0, 5.0, 3.0)
MMSA_NAMES = {
    "MOSI": {
        "mae": "MAE",
        "corr": "Corr",
        "a7": "Mult_acc_7",
        "a2_has0": "Has0_acc_2",
        "a2_non0": "Non0_acc_2",
        "f1_has0": "Has0_F1_score",
        "f1_non0": "Non0_F1_score",
    },
    "SIMS": {"a5": "Mult_acc_5", "a3": "Mult_acc_3", "a2_neg0": "Mult_acc_2", "f1_neg0": "F1_score"},
}

# Rounding ties, zeros of both signs, values beyond the range; all exact in float32.
EDGES = st.sampled_from([-9.0, -3.5, -3.0, -2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 3.0, 3.5, 9.0])
ORDINARY = st.floats(-4, 4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
ROWS = st.lists(st.tuples(EDGES | ORDINARY, EDGES | ORDINARY), min_size=1, max_size=30)
# Bounds of MMSA's intervals in fp32, which differ from fp64.
BOUNDS = st.sampled_from([float(np.float32(x)) for x in (-1, -0.7, -0.4, -0.1, 0, 0.1, 0.2, 0.7, 1)])
SIMS_ROWS = st.lists(st.tuples(BOUNDS | ORDINARY, BOUNDS | st.floats(-1, 1, width=32)), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def mmsa():
    """MMSA's metric module, loaded on its own because importing the package would load its models."""
    spec = importlib.util.find_spec("MMSA")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("MMSA is not installed")
    path = Path(next(iter(spec.submodule_search_locations))) / "utils" / "metricsTop.py"
    file_spec = importlib.util.spec_from_file_location("mmsa_metrics_top", path)
    module = importlib.util.module_from_spec(file_spec)
    file_spec.loader.exec_module(module)
    return module.MetricsTop("regression")


def assert_equals_mmsa(mmsa, prediction, label, name="MOSI"):
    """Check that every metric equals MMSA's, and that absent ones have labels of a single class."""
    scale = {"MOSI": MOSI, "SIMS": SIMS}[name]
    ours, absent = scale.score(prediction, label), scale.absent(label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = mmsa.getMetics(name)(torch.tensor(prediction), torch.tensor(label))
    for key, their_name in MMSA_NAMES[name].items():
        if key not in ours:
            assert key in absent
        elif not math.isnan(ours[key]):
            # MMSA computes the error in float32 and rounds to four digits.
            assert ours[key] == pytest.approx(float(theirs[their_name]), abs=5.1e-5, rel=1e-6), key


@settings(max_examples=150, deadline=None)
@given(rows=ROWS.filter(lambda rows: any(y != 0 for _, y in rows)))
def test_equals_mmsa_on_edge_inputs(mmsa, rows):
    prediction, label = np.array(rows, np.float32).T
    assert_equals_mmsa(mmsa, prediction, label)


@settings(max_examples=150, deadline=None)
@given(rows=SIMS_ROWS)
def test_equals_mmsa_on_the_bounds_of_sims_intervals(mmsa, rows):
    prediction, label = np.array(rows, np.float32).T
    assert_equals_mmsa(mmsa, prediction, label, "SIMS")


@pytest.mark.parametrize("seed", range(5))
def test_equals_mmsa_on_test_splits_of_mosis_and_sims_size(mmsa, seed):
    rng = np.random.default_rng(seed)
    label = (rng.integers(-15, 16, 686) / 5).astype(np.float32)
    prediction = (label + rng.normal(0, 1, 686)).astype(np.float32)
    assert_equals_mmsa(mmsa, prediction, label)
    label = (rng.integers(-5, 6, 457) / 5).astype(np.float32)
    prediction = (label + rng.normal(0, 0.4, 457)).astype(np.float32)
    assert SIMS.score(prediction, label).keys() == {"mae", "corr", *MMSA_NAMES["SIMS"]}
    assert_equals_mmsa(mmsa, prediction, label, "SIMS")


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, threshold=st.sampled_from([0.0, -0.5, 1.5]))
def test_equals_scikit_learn_without_rounding(rows, threshold):
    prediction, label = np.array(rows, np.float32).T.astype(np.float64)
    ours = LabelScale(threshold=threshold).score(prediction, label)
    exact = {"rel": 1e-12, "abs": 1e-12}
    kept = label != threshold
    pairs = {
        "has0": (label >= threshold, prediction >= threshold),
        "non0": (label[kept] > threshold, prediction[kept] > threshold),
    }
    for convention, (truth, positive) in pairs.items():
        assert (f"a2_{convention}" in ours) == (f"f1_{convention}" in ours) == (len(set(truth)) == 2)
        if f"a2_{convention}" in ours:
            f1 = f1_score(truth, positive, average="weighted", zero_division=0)
            assert ours[f"a2_{convention}"] == pytest.approx(accuracy_score(truth, positive), **exact)
            assert ours[f"f1_{convention}"] == pytest.approx(f1, **exact)
    if not math.isnan(ours["corr"]):
        assert ours["corr"] == pytest.approx(np.corrcoef(prediction, label)[0, 1], abs=1e-7)
    classes = [np.round(np.clip(x, -3, 3)) for x in (label, prediction)]
    table = SEVEN.confusion(prediction, label)
    np.testing.assert_array_equal(table, confusion_matrix(*classes, labels=range(-3, 4)))
    if "a7" in ours:
        assert ours["a7"] == pytest.approx(np.trace(table) / len(label), **exact)


def test_hand_computed_values():
    label = [-2.0, 0.0, 1.0, 3.0]
    prediction = [0.5, -0.5, 1.5, 5.0]
    metrics = MOSI.score(prediction, label)
    assert list(metrics) == [metric.key for metric in MOSI.metrics]
    assert metrics["mae"] == (2.5 + 0.5 + 0.5 + 2.0) / 4
    # Classes -2 0 1 3 and 0 0 2 3: halves round to even, 5 is clipped.
    assert metrics["a7"] == 2 / 4
    assert metrics["a2_has0"] == 2 / 4  # zero is positive: truth - + + +, predicted + - + +
    assert metrics["a2_non0"] == 2 / 3  # without it: truth - + +, predicted + + +
    assert metrics["f1_has0"] == pytest.approx(3 / 4 * (2 * 2 / 6))
    assert metrics["f1_non0"] == pytest.approx(2 / 3 * (2 * 2 / 5))


def test_star_ratings_have_two_classes_at_their_threshold_but_no_a7():
    metrics = STARS.score([1.0, 3.5, 3.0, 2.0], [1.0, 2.0, 3.0, 5.0])
    assert metrics.keys() == {"mae", "corr", "a2_has0", "a2_non0", "f1_has0", "f1_non0"}
    assert metrics["a2_has0"] == 2 / 4  # truth - - + +, predicted - + + -
    assert metrics["a2_non0"] == 1 / 3  # truth - - +, predicted - + -
    assert [metric.title for metric in STARS.metrics][2:] == ["A2 has 3", "A2 non 3", "F1 has 3", "F1 non 3"]
    assert STARS.absent().keys() == {"a7", "a5", "a3"}
    np.testing.assert_array_equal(STARS.classes[1].confusion([1, 3.5, 3, 2], [1, 2, 3, 5]), [[1, 1], [1, 1]])
    assert STARS.classes[1].names == ("< 3", "≥ 3")


def test_words_on_the_threshold_of_sims_agree_with_its_metrics():
    assert SIMS.score([-0.1, 0.5], [0.0, 1.0])["a2_neg0"] == SIMS.score([0.0, 0.5], [-1.0, 1.0])["a2_neg0"] == 1.0
    seven, zero = sorted(SIMS.in_words(SIMS.absent()))
    assert seven.startswith("No A7: ")
    assert zero == (
        "Zero counts as negative for labels in [-1, 1], as in CH-SIMS, so A2 and F1 exist only in this way (neg0), and "
        "neither with zero as positive (has0) nor without such clips (non0)."
    )


def test_a_label_equal_to_a_threshold_rounded_down_in_fp32_is_positive():
    scale = LabelScale(0.0, 1.0, 0.7)
    label = np.array([0.2, 0.7], np.float32)  # 0.7 is 0.69999999 there
    assert scale.score(label, label)["a2_has0"] == 1.0
    assert scale.score(np.array([0.2, 0.6], np.float32), label)["a2_has0"] == 0.5


@pytest.mark.parametrize(
    ("labels", "absent"),
    [
        ([0.0, 1.0, 1.0], {"a2_has0", "a2_non0", "f1_has0", "f1_non0"}),  # 0/1 labels on MOSI's scale
        ([0.4, -0.4, 0.2], {"a7"}),  # SIMS labels on MOSI's scale: all round to 0
        ([0.0, -0.4, -1.0], {"a2_non0", "f1_non0"}),
        ([0.0, 0.0], {"a7", "a2_has0", "a2_non0", "f1_has0", "f1_non0"}),
        ([-1.0, 0.0, 1.0], set()),
    ],
)
def test_a_class_metric_is_absent_if_all_labels_are_in_one_class(labels, absent):
    scores = MOSI.score(np.zeros(len(labels)), labels)
    assert {metric.key for metric in MOSI.metrics} - scores.keys() == absent
    assert MOSI.absent(labels).keys() == absent
    assert MOSI.absent([min(labels), max(labels)]).keys() == absent
    assert len(MOSI.in_words(MOSI.absent(labels))) == len(set(MOSI.absent(labels).values()))


@pytest.mark.parametrize("scale", [MOSI, SIMS, STARS, LabelScale(0, 1, 0.5), LabelScale(0, 100, 50)])
def test_each_known_metric_exists_or_is_reported_absent(scale):
    existing, absent = {metric.key for metric in scale.metrics}, scale.absent().keys()
    assert not existing & absent
    assert {"mae", "corr", "a7", "a2_has0", "a2_non0", "f1_has0", "f1_non0"} <= existing | absent
    assert LabelScale.from_json(scale.to_json()) == scale


@pytest.mark.parametrize("prediction", [[0.1] * 7, [1.0]])
def test_correlation_of_a_constant_is_nan(prediction):
    metrics = MOSI.score(prediction, np.linspace(-1, 1, len(prediction)))
    assert math.isnan(metrics["corr"])
    assert math.isfinite(metrics["mae"])


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([], [], "no rows"),
        ([1.0, 2.0], [1.0], r"shape \[2\], label \[1\]"),
        ([[1.0]], [[1.0]], r"expected \[R\]"),
        ([1.0, math.nan], [1.0, 1.0], "prediction has 1 of 2 values that are not finite"),
        ([1.0], [math.inf], "label has 1 of 1"),
    ],
)
def test_arrays_that_cannot_be_scored_are_refused(prediction, label, message):
    with pytest.raises(ValueError, match=message):
        MOSI.score(prediction, label)

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

from vadv_dist.evaluation.metrics import METRICS, confusion_7, regression_metrics

MMSA_NAMES = {
    "mae": "MAE",
    "corr": "Corr",
    "a7": "Mult_acc_7",
    "a2_has0": "Has0_acc_2",
    "a2_non0": "Non0_acc_2",
    "f1_has0": "Has0_F1_score",
    "f1_non0": "Non0_F1_score",
}

# Ties of rounding, zeros of both signs, values beyond the range; all exact in float32.
EDGES = st.sampled_from([-9.0, -3.5, -3.0, -2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 3.0, 3.5, 9.0])
ORDINARY = st.floats(-4, 4, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
ROWS = st.lists(st.tuples(EDGES | ORDINARY, EDGES | ORDINARY), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def mmsa():
    """MMSA's published metric module, loaded alone: importing the package would pull in its models."""
    spec = importlib.util.find_spec("MMSA")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("MMSA is not installed")
    path = Path(next(iter(spec.submodule_search_locations))) / "utils" / "metricsTop.py"
    file_spec = importlib.util.spec_from_file_location("mmsa_metrics_top", path)
    module = importlib.util.module_from_spec(file_spec)
    file_spec.loader.exec_module(module)
    return module.MetricsTop("regression").getMetics("MOSI")


def assert_equals_mmsa(mmsa, prediction, label):
    ours = regression_metrics(prediction, label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = mmsa(torch.tensor(prediction), torch.tensor(label))
    for name, their_name in MMSA_NAMES.items():
        if name == "corr" and math.isnan(ours["corr"]):
            continue
        # MMSA computes the error in float32 and rounds to four digits.
        assert ours[name] == pytest.approx(float(theirs[their_name]), abs=5.1e-5, rel=1e-6), name


@settings(max_examples=150, deadline=None)
@given(rows=ROWS.filter(lambda rows: any(y != 0 for _, y in rows)))
def test_equals_mmsa_on_edge_inputs(mmsa, rows):
    prediction, label = np.array(rows, np.float32).T
    assert_equals_mmsa(mmsa, prediction, label)


@pytest.mark.parametrize("seed", range(5))
def test_equals_mmsa_on_a_test_split_of_mosis_size(mmsa, seed):
    rng = np.random.default_rng(seed)
    label = (rng.integers(-15, 16, 686) / 5).astype(np.float32)
    prediction = (label + rng.normal(0, 1, 686)).astype(np.float32)
    assert_equals_mmsa(mmsa, prediction, label)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS)
def test_equals_scikit_learn_without_rounding(rows):
    prediction, label = np.array(rows, np.float32).T.astype(np.float64)
    ours = regression_metrics(prediction, label)
    exact = {"rel": 1e-12, "abs": 1e-12}
    kept = label != 0
    pairs = {"has0": (label >= 0, prediction >= 0), "non0": (label[kept] > 0, prediction[kept] > 0)}
    for convention, (truth, positive) in pairs.items():
        if len(truth):
            f1 = f1_score(truth, positive, average="weighted", zero_division=0)
            assert ours[f"a2_{convention}"] == pytest.approx(accuracy_score(truth, positive), **exact)
            assert ours[f"f1_{convention}"] == pytest.approx(f1, **exact)
    if not math.isnan(ours["corr"]):
        assert ours["corr"] == pytest.approx(np.corrcoef(prediction, label)[0, 1], abs=1e-7)
    classes = [np.round(np.clip(x, -3, 3)) for x in (label, prediction)]
    table = confusion_7(prediction, label)
    np.testing.assert_array_equal(table, confusion_matrix(*classes, labels=range(-3, 4)))
    assert ours["a7"] == pytest.approx(np.trace(table) / len(label), **exact)


def test_hand_computed_values():
    label = [-2.0, 0.0, 1.0, 3.0]
    prediction = [0.5, -0.5, 1.5, 5.0]
    metrics = regression_metrics(prediction, label)
    assert list(metrics) == list(METRICS)
    assert metrics["mae"] == (2.5 + 0.5 + 0.5 + 2.0) / 4
    # Classes -2 0 1 3 against 0 0 2 3: a half goes to the even neighbour, 5 is clipped.
    assert metrics["a7"] == 2 / 4
    assert metrics["a2_has0"] == 2 / 4  # zero is positive: truth - + + +, predicted + - + +
    assert metrics["a2_non0"] == 2 / 3  # without it: truth - + +, predicted + + +
    assert metrics["f1_has0"] == pytest.approx(3 / 4 * (2 * 2 / 6))
    assert metrics["f1_non0"] == pytest.approx(2 / 3 * (2 * 2 / 5))


@pytest.mark.parametrize("prediction", [[0.1] * 7, [1.0]])
def test_correlation_of_a_constant_is_nan(prediction):
    metrics = regression_metrics(prediction, np.linspace(-1, 1, len(prediction)))
    assert math.isnan(metrics["corr"])
    assert math.isfinite(metrics["mae"])


def test_non_zero_convention_is_nan_where_every_label_is_zero():
    metrics = regression_metrics([0.5, -0.5], [0.0, 0.0])
    assert math.isnan(metrics["a2_non0"])
    assert math.isnan(metrics["f1_non0"])
    assert metrics["a2_has0"] == 0.5


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
        regression_metrics(prediction, label)

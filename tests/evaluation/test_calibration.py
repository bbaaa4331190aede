"""The line from predictions to labels, against numpy's and where there is none."""

import numpy as np
import pytest

from vadv_dist.evaluation.calibration import fit_line


def test_line_is_that_of_least_squares() -> None:
    random = np.random.default_rng(0)
    prediction = random.normal(size=200).astype(np.float32)
    label = (2.5 * prediction - 0.7 + random.normal(scale=0.5, size=200)).astype(np.float32)
    found = fit_line(prediction, label)
    assert (found.slope, found.intercept) == pytest.approx(tuple(np.polyfit(prediction.astype(float), label, 1)))
    assert found.mae_before == pytest.approx(np.abs(prediction - label).mean())
    assert found.mae_after == pytest.approx(np.abs(found.slope * prediction + found.intercept - label).mean())
    assert found.mae_after < found.mae_before
    assert found.clips == 200
    assert str(found).startswith(f"calibrated: {found.slope:.3f} × prediction − {-found.intercept:.3f}, MAE")


@pytest.mark.parametrize(
    ("prediction", "label", "why"),
    [
        ([0.3, 0.3, 0.3], [1.0, 0.0, -1.0], "constant"),
        ([0.301, 0.3, 0.3], [1.0, 0.0, -1.0], "constant"),
        ([1.0, 0.0, -1.0], [-1.0, 0.0, 1.0], "fall as the labels rise"),
        ([1.0, 0.0, 1.0], [-1.0, -1.0, -1.0], "fall as the labels rise"),
        ([0.5], [1.0], "constant"),
        ([2.0, 0.0, -2.0], [1.0, 0.0, -1.0], "spread enough (least squares would multiply them by 0.50)"),
    ],
)
def test_degenerate_fits_are_left_out(prediction: list[float], label: list[float], why: str) -> None:
    found = fit_line(prediction, label)
    assert found.slope is None
    assert why in found.left_out
    assert found.mae_before == pytest.approx(np.abs(np.subtract(prediction, label)).mean())
    assert str(found) == f"not calibrated: {found.left_out}"

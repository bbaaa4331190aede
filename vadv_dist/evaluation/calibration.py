"""The line from a model's predictions to the labels, for predictions that spread too little."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.evaluation.remarks import CONSTANT_SHARE


@dataclass(frozen=True)
class Calibration:
    """An affine correction of predictions, and what it does on the clips that it was fitted to.

    Attributes:
        slope, intercept: a prediction p becomes slope · p + intercept; None if there is no line to correct it with.
        mae_before, mae_after: mean absolute error on the clips of the fit, in label units; the latter is None like the
            line.
        clips: their number.
        left_out: why there is no line; empty if there is one.
    """

    slope: float | None
    intercept: float | None
    mae_before: float
    mae_after: float | None
    clips: int
    left_out: str = ""

    def __str__(self) -> str:
        if self.slope is None or self.intercept is None or self.mae_after is None:
            return f"not calibrated: {self.left_out}"
        sign = "+" if self.intercept >= 0 else "−"
        return (
            f"calibrated: {self.slope:.3f} × prediction {sign} {abs(self.intercept):.3f}, MAE {self.mae_before:.4f} → "
            f"{self.mae_after:.4f} on the {self.clips} validation clips that this line was fitted to"
        )


def fit_line(prediction: npt.ArrayLike, label: npt.ArrayLike) -> Calibration:
    """Fit the labels as a line of the predictions, by least squares.

    A weak teacher pulls its student's predictions towards a constant, and a line with a slope above 1 undoes that.
    There is no line if predictions are constant or fall as the labels rise, nor with a slope up to 1: least squares
    then trades a smaller squared error for a larger absolute one (docs/results.md), and nothing has to be undone.

    Args:
        prediction, label: in label units, [R] each, R ≥ 1.
    """
    p, y = np.asarray(prediction, np.float64), np.asarray(label, np.float64)
    before = float(np.abs(p - y).mean())
    if p.std() <= CONSTANT_SHARE * y.std():
        return Calibration(None, None, before, None, len(y), "the predictions for validation are constant")
    slope = float(((p - p.mean()) * (y - y.mean())).mean() / p.var())
    if slope <= 0:
        return Calibration(None, None, before, None, len(y), "predictions for validation fall as the labels rise")
    if slope <= 1:
        why = f"predictions for validation spread enough (least squares would multiply them by {slope:.2f})"
        return Calibration(None, None, before, None, len(y), why)
    intercept = float(y.mean() - slope * p.mean())
    return Calibration(slope, intercept, before, float(np.abs(slope * p + intercept - y).mean()), len(y))

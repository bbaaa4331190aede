import numpy as np
import pytest

from vadv_dist.evaluation.description import Output
from vadv_dist.evaluation.remarks import remark, remarks, spread

LABEL = np.array([-2.0, -1.0, 1.0, 2.0])  # standard deviation sqrt(2.5)


def scores(prediction: np.ndarray, constant: float | None = 0.5) -> dict[str, float]:
    return {"mae": float(np.abs(prediction - LABEL).mean()), **spread(prediction, LABEL, constant)}


def test_spread_counts_clips_and_scores_the_constant() -> None:
    found = spread(LABEL / 2, LABEL, 0.5)
    expected = {"clips": 4, "prediction_std": 2.5**0.5 / 2, "label_std": 2.5**0.5, "constant_mae": 6 / 4}
    assert found == pytest.approx(expected)
    assert "constant_mae" not in spread(LABEL, LABEL, None)


@pytest.mark.parametrize(("share", "is_constant"), [(0.0, True), (0.0099, True), (0.0101, False)])
def test_predictions_with_less_than_a_hundredth_of_the_labels_spread_are_constant(
    share: float, is_constant: bool
) -> None:
    found = remark(scores(0.3 + share * LABEL, constant=None))
    assert (found is not None) == is_constant
    assert found is None or "predicts a constant" in found


def test_a_model_with_the_error_of_the_constant_is_no_better_than_it() -> None:
    text = "is no better than a constant: the median of the training labels has an MAE of 1.500 on these clips"
    assert text in str(remark(scores(-LABEL)))
    assert remark(scores(LABEL)) is None
    outputs = [Output(name, name, f"{name}_logit", name) for name in ("student", "video", "prompt", "absent")]
    told = remarks({"student": scores(LABEL), "video": scores(-LABEL), "prompt": scores(np.zeros(4))}, outputs)
    assert [line.split(" is ")[0].split(" predicts ")[0] for line in told] == ["The video", "The prompt"]


def test_equal_labels_give_no_remark_about_spread() -> None:
    assert remark(spread(np.zeros(3), np.ones(3), None)) is None

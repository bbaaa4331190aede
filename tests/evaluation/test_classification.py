"""Metrics of classes against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
)

from vadv_dist.evaluation.classification import (
    beyond_constant,
    class_remarks,
    class_scores,
    confusion,
    predicted_classes,
    score,
)
from vadv_dist.evaluation.description import Output


def scores_of(probability: np.ndarray, label: np.ndarray) -> dict[str, float]:
    return score(probability, label) | beyond_constant(probability, label)


def drawn(classes: int, rows: int, seed: int, labels_in: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.ones(classes), rows)
    return values, rng.integers(0, labels_in or classes, rows).astype(np.float32)


@pytest.mark.parametrize(
    ("classes", "rows", "labels_in"),
    [(2, 40, 2), (3, 100, 3), (7, 30, 7), (5, 6, 2), (4, 1, 1), (10, 12, 3)],
)
def test_scores_are_those_of_scikit_learn(classes: int, rows: int, labels_in: int) -> None:
    probability, label = drawn(classes, rows, classes + rows, labels_in)
    predicted = probability.argmax(axis=1)
    found = scores_of(probability, label)
    assert found["accuracy"] == pytest.approx(accuracy_score(label, predicted))
    assert found["f1_macro"] == pytest.approx(f1_score(label, predicted, average="macro", zero_division=0))
    assert found["f1_weighted"] == pytest.approx(f1_score(label, predicted, average="weighted", zero_division=0))
    if rows > 1:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(label, predicted))
    matrix = confusion(predicted, label, classes)
    np.testing.assert_array_equal(matrix, confusion_matrix(label, predicted, labels=range(classes)))
    mine = class_scores(matrix)
    theirs = precision_recall_fscore_support(label, predicted, labels=range(classes), zero_division=0)
    for own, other in zip((mine.precision, mine.recall, mine.f1, mine.support), theirs, strict=True):
        np.testing.assert_allclose(own, other)


def test_a_constant_has_no_skill_and_is_named() -> None:
    label = np.array([0.0, 1.0, 1.0, 2.0])
    constant = scores_of(np.tile([0.2, 0.5, 0.3], (4, 1)), label)
    assert constant["kappa"] == 0
    assert (constant["accuracy"], constant["constant_accuracy"]) == (0.5, 0.5)
    worse = scores_of(np.eye(3)[[1, 0, 1, 0]], label)
    good = scores_of(np.eye(3)[[0, 1, 1, 2]], label)
    outputs = [Output(name, name, name, name) for name in ("student", "video", "prompt", "absent")]
    said = class_remarks({"student": constant, "video": worse, "prompt": good}, outputs)
    assert said[0] == "The student predicts the same class for every clip."
    assert said[1].startswith("The video is no better than a constant: the most frequent class is that of 50.0%")
    assert len(said) == 2


def test_one_class_everywhere_has_no_kappa_and_no_remark() -> None:
    found = scores_of(np.array([[0.9, 0.1], [0.8, 0.2]]), np.zeros(2))
    assert np.isnan(found["kappa"])
    assert found["f1_macro"] == 1
    assert class_remarks({"student": found}, [Output("student", "Student", "s", "student")]) == []


def test_equal_probabilities_give_the_first_class() -> None:
    np.testing.assert_array_equal(predicted_classes([[0.5, 0.5], [0.2, 0.8]]), [0, 1])


@pytest.mark.parametrize(
    ("probability", "label", "message"),
    [
        (np.ones(3), np.zeros(3), r"expected \[R, C\] and \[R\]"),
        (np.ones((3, 2)), np.zeros(2), r"expected \[R, C\] and \[R\]"),
        (np.ones((0, 2)), np.zeros(0), "no rows"),
        (np.array([[np.nan, 1.0]]), np.zeros(1), "1 of 1 rows are not finite"),
        (np.ones((1, 2)), np.array([2.0]), "integers from 0 to 1"),
        (np.ones((1, 2)), np.array([0.5]), "integers from 0 to 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(probability: np.ndarray, label: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(probability, label)

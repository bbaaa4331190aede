"""What a teacher's view is worth to a student: Gaussians of known information, and the interval's coverage."""

import math

import numpy as np
import pytest

from vadv_dist.evaluation.complementarity import complementarity


def gaussians(rng, groups, *, label_noise=1.0, teacher_noise=0.5, size=10):
    """The latent, seen through noise by student (deviation 1), label and teacher; the best predictions from each."""
    z, s, y, t = (rng.normal(size=groups * size) for _ in range(4))
    student, label, teacher = z + s, z + label_noise * y, z + teacher_noise * t
    # E[label | student] = E[z | student] = student / 2, and so for the teacher's view.
    return label, teacher, student / 2, student / 2, np.repeat(np.arange(groups), size)


def test_information_and_gain_of_gaussians() -> None:
    found = complementarity(*gaussians(np.random.default_rng(0), 20_000), seed=1, num_samples=100)
    # R² of the label is var(student / 2) / var(label) = 0.5 / 2, that of the teacher's view 0.5 / 1.25.
    assert found.student_label == pytest.approx(-0.5 * math.log(1 - 0.25), abs=0.01)
    assert found.teacher_student == pytest.approx(-0.5 * math.log(1 - 0.4), abs=0.01)
    assert found.difference.mean == pytest.approx(0.5 * math.log(0.75 / 0.6), abs=0.01)
    # var(label | student) = 1.5; with the teacher's view, 1 + 1 / (1 + 1 + 4).
    assert found.gain.mean == pytest.approx(1 - (1 + 1 / 6) / 1.5, abs=0.01)


def test_clearer_target_of_gaussians() -> None:
    label, teacher, *rest = gaussians(np.random.default_rng(0), 20_000)
    # Distances from the student's prediction: var(z | student) = 0.5 plus noise of 1 and 0.25, mixed 0.2 to 0.8.
    expected = 1 - (0.5 + 0.04 * 1 + 0.64 * 0.25) / 1.5
    for view in (teacher, 3 * teacher + 2):
        assert complementarity(label, view, *rest, seed=1, num_samples=50).clearer_target.mean == pytest.approx(
            expected, abs=0.01
        )
    noise = np.random.default_rng(1).normal(size=len(label))
    for view in (-teacher, noise):
        assert complementarity(label, view, *rest, seed=1, num_samples=50).clearer_target.mean < 0.001
    # The student predicts this view well, but mostly in a direction that has nothing to do with the label.
    other = teacher + 10 * np.random.default_rng(2).normal(size=len(label))
    aside = complementarity(label, other, rest[0], other, rest[2], seed=1, num_samples=50)
    assert aside.difference.mean > 1
    assert aside.clearer_target.mean < 0.02


def test_intervals_cover_the_truth_and_count_videos_rather_than_clips() -> None:
    rng, truth, tries = np.random.default_rng(1), 0.5 * math.log(0.75 / 0.6), 200
    held = 0
    for one in range(tries):
        interval = complementarity(*gaussians(rng, 100), seed=one, num_samples=400).difference
        held += interval.low < truth < interval.high
    assert held / tries == pytest.approx(0.95, abs=0.04)
    label, teacher, label_hat, teacher_hat, group = gaussians(rng, 60, size=1)
    copies = [np.repeat(column, 30) for column in (label, teacher, label_hat, teacher_hat)]
    once = complementarity(label, teacher, label_hat, teacher_hat, group, seed=1).difference
    assert complementarity(*copies, np.repeat(group, 30), seed=1).difference == pytest.approx(once)


def test_predictions_worse_than_the_mean_hold_no_information() -> None:
    rng = np.random.default_rng(2)
    label, teacher, label_hat, _, group = gaussians(rng, 50)
    found = complementarity(label, teacher, label_hat, -teacher, group, seed=1, num_samples=50)
    assert found.teacher_student == 0
    assert found.difference.high < 0


def test_bad_input_is_named() -> None:
    label, teacher, label_hat, teacher_hat, group = gaussians(np.random.default_rng(3), 5)
    with pytest.raises(ValueError, match=r"teacher has shape \[49\], label \[50\]"):
        complementarity(label, teacher[1:], label_hat, teacher_hat, group, seed=1)
    with pytest.raises(ValueError, match="label_from_student has 1 values that are not finite"):
        complementarity(label, teacher, np.where(np.arange(50) == 3, np.nan, label_hat), teacher_hat, group, seed=1)
    with pytest.raises(ValueError, match="there are 1 groups"):
        complementarity(label, teacher, label_hat, teacher_hat, group * 0, seed=1)


def test_values_of_a_label_are_pooled() -> None:
    """A label of values that say the same is that label; of two independent ones, errors and variances add up."""
    *one, group = gaussians(np.random.default_rng(5), 200)
    *other, _ = gaussians(np.random.default_rng(6), 200, teacher_noise=2.0)
    expected = complementarity(*one, group, seed=1, num_samples=50)
    same = complementarity(*(np.stack([v, -v], axis=1) for v in one), group, seed=1, num_samples=50)
    for name in ("difference", "gain", "clearer_target"):
        assert getattr(same, name) == pytest.approx(getattr(expected, name), abs=1e-9)

    found = complementarity(*(np.stack(pair, axis=1) for pair in zip(one, other, strict=True)), group, seed=1)
    squares, alone, with_teacher = 0.0, 0.0, 0.0
    for label, teacher, label_hat, _ in (one, other):
        for predictors, total in (([label_hat], "alone"), ([label_hat, teacher], "both")):
            table = np.stack([np.ones_like(label), *predictors], axis=1)
            left = float(np.linalg.lstsq(table, label, rcond=None)[1][0])
            alone += left * (total == "alone")
            with_teacher += left * (total == "both")
        squares += float(((label - label_hat) ** 2).sum() / len(label))
    variance = sum(float(label.var()) for label, *_ in (one, other))
    assert found.gain.mean == pytest.approx(1 - with_teacher / alone)
    assert found.student_label == pytest.approx(-0.5 * math.log(squares / variance))

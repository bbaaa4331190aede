import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from vadv_dist.evaluation.discordance import discordance


def made(count=400):
    rng = np.random.default_rng(0)
    student, teacher = rng.gamma(2, 0.4, count), rng.gamma(2, 0.3, count)
    return student, teacher, student <= 0.5, teacher <= 0.5


def test_counts_are_those_of_a_confusion_matrix():
    student, teacher, student_right, teacher_right = made()
    found = discordance(student, teacher, student_right, teacher_right)
    (neither, only_teacher), (only_student, both) = confusion_matrix(student_right, teacher_right)
    assert (found.neither, found.only_teacher, found.only_student, found.both) == (
        neither,
        only_teacher,
        only_student,
        both,
    )
    assert found.right.mean == pytest.approx((only_teacher - only_student) / 400)


def test_differences_are_paired():
    student, teacher, *right = made()
    found = discordance(student, teacher, *right)
    expected = stats.bootstrap((student - teacher,), np.mean, n_resamples=5000, method="percentile", rng=1)
    assert found.error == pytest.approx((np.mean(student - teacher), *expected.confidence_interval), abs=0.01)
    # The same noise in both cancels.
    noise = np.random.default_rng(3).gamma(2, 3.0, 400)
    again = discordance(student + noise, teacher + noise, *right)
    assert again.error == pytest.approx(found.error)


def test_leads_are_means_over_the_clips_that_one_of_them_has_right():
    found = discordance([1.0, 2.0, 0.1, 0.2, 3.0], [0.1, 0.5, 0.7, 0.1, 9.0], [0, 0, 1, 1, 0], [1, 1, 0, 1, 0])
    assert (found.both, found.only_teacher, found.only_student, found.neither) == (1, 2, 1, 1)
    assert found.teacher_ahead == pytest.approx((0.9 + 1.5) / 2)
    assert found.student_ahead == pytest.approx(0.6)


def test_clips_without_a_prediction_are_left_out():
    found = discordance([1.0, 0.1, np.nan], [np.nan, 0.2, 0.1], [0, 1, 0], [1, 1, 1])
    assert (found.clips, found.both, found.teacher_ahead, found.student_ahead) == (1, 1, None, None)
    assert found.error == pytest.approx((-0.1, -0.1, -0.1))
    assert discordance([1.0], [np.nan], [False], [False]) is None

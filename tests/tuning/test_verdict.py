"""The verdict, checked against textbook numbers and hand calculations."""

import pytest

from vadv_dist.tuning.events import Failed, too_many_failures
from vadv_dist.tuning.objectives import BY_KEY
from vadv_dist.tuning.verdict import candidate, decide

MAE = BY_KEY["mae"]


def test_interval_is_students_t() -> None:
    # By hand: mean 2, deviation 1, t(0.975, 2) = 4.3027, so 4.3027 / sqrt(3) to either side.
    gain = candidate("trial 1", dict.fromkeys((1, 2, 3), 1.0), {1: 2.0, 2: 3.0, 3: 4.0}).gain
    assert gain is not None
    assert gain.mean == 2
    assert (gain.low, gain.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_clear_gain_is_reported_with_its_interval() -> None:
    default = {2: 1.00, 3: 1.10, 4: 1.05}
    verdict = decide(default, [candidate("trial 7", {2: 0.90, 3: 1.001, 4: 0.95}, default)], MAE)
    assert verdict.is_better
    assert verdict.winner is not None
    assert verdict.winner.name == "trial 7"
    assert verdict.sentence.startswith("better than the default by 0.0997 MAE (trial 7; 95 % interval +0.09")


def test_disagreeing_seeds_are_not_a_gain() -> None:
    default = {2: 1.00, 3: 1.00, 4: 1.00}
    verdict = decide(default, [candidate("trial 7", {2: 0.80, 3: 1.02, 4: 1.01}, default)], MAE)
    assert not verdict.is_better
    assert verdict.sentence.startswith("no gain over the default: the mean of trial 7 is better by 0.0567 MAE")


def test_default_wins_if_all_others_are_worse() -> None:
    default = {2: 1.00, 3: 1.00, 4: 1.00}
    verdict = decide(default, [candidate("trial 7", {2: 1.1, 3: 1.2, 4: 1.3}, default)], MAE)
    assert verdict.winner is None
    # The interval has the sign of the words, so it contains the number in the sentence.
    assert verdict.sentence.startswith(
        "no gain over the default: the mean of trial 7 is worse by 0.2000 MAE "
        "(95 % interval −0.0484 … +0.4484 over 3 seeds"
    )


def test_choosing_among_several_widens_the_interval() -> None:
    default, mae = {2: 1.0, 3: 1.0, 4: 1.0}, {2: 0.9, 3: 0.93, 4: 0.88}
    one, three = candidate("a", mae, default).gain, candidate("a", mae, default, rivals=3).gain
    assert one is not None
    assert three is not None
    assert three.low < one.low < one.mean == three.mean


def clip_errors(mae: dict[int, float], spread: float) -> dict[int, dict[tuple[str, str], float]]:
    """Errors of five clips whose mean is each seed's MAE."""
    return {seed: {("set", f"c{i}"): m + spread * (i - 2) for i in range(5)} for seed, m in mae.items()}


def test_interval_covers_clips_if_errors_by_clip_are_known() -> None:
    default, mae = {2: 1.00, 3: 1.10, 4: 1.05}, {2: 0.90, 3: 1.001, 4: 0.95}
    given = {"errors": clip_errors(mae, 0.3), "default_errors": clip_errors(default, 0.1)}
    alone, both = candidate("trial 7", mae, default), candidate("trial 7", mae, default, **given)
    assert (alone.clips, both.clips) == (None, 5)
    assert alone.gain.excludes_zero
    assert not both.gain.excludes_zero  # the gain of 0.1 is made by some clips and lost on others
    assert both.gain.mean == pytest.approx(alone.gain.mean)
    sentence = decide(default, [both], MAE).sentence
    assert sentence.startswith("no gain over the default: the mean of trial 7 is better by 0.0997 MAE")
    assert "over 3 seeds and 5 clips" in sentence


def test_errors_of_other_clips_or_seeds_are_not_paired() -> None:
    default, mae = {2: 1.00, 3: 1.10}, {2: 0.90, 3: 1.001}
    errors, others = clip_errors(mae, 0.3), clip_errors(default, 0.1)
    others[3] = {("another", name): error for (_, name), error in others[3].items()}
    assert candidate("a", mae, default, errors=errors, default_errors=others).clips is None
    assert candidate("a", mae, default, errors={2: errors[2]}, default_errors=errors).clips is None


def test_without_a_comparison_there_is_no_gain() -> None:
    assert decide({2: 1.0}, [candidate("trial 1", {2: 0.5}, {2: 1.0})], MAE).sentence.startswith("no gain")


def test_consecutive_failures_are_reported_with_their_common_values() -> None:
    failed = [
        ({"optimizer.lr": lr, "student.pooling": "mean"}, Failed("NaN or infinity", "loss became nan")) for lr in (3, 5)
    ]
    error = too_many_failures(failed, [{"optimizer.lr": 0.1, "student.pooling": "mean"}, {"optimizer.lr": 1.0}])
    assert error.exit_code == 2
    assert "2 failed trials in a row (2 × NaN or infinity)" in str(error)
    assert "optimizer.lr is at least 3 (at most 1 elsewhere)" in str(error)
    assert "pooling" not in str(error)


def test_failures_that_share_a_choice_are_reported_with_it() -> None:
    failed = [({"student.pooling": "mean", "student.hidden": 16}, Failed("crash", "boom")) for _ in range(2)]
    error = too_many_failures(failed, [{"student.pooling": "cls", "student.hidden": 16}])
    assert error.exit_code == 1
    assert "They share: student.pooling is mean. The last error: boom" in str(error)
    assert "nothing in common" in str(too_many_failures(failed, [{"student.pooling": "mean", "student.hidden": 16}]))

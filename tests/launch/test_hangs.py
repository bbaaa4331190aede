"""Which ranks of a run hang, from what the controller knows of them."""

from vadv_dist.launch.hangs import Heard, find_hang
from vadv_dist.training.pulse import Beat


def heard(rank: int, *, step: int = 9, still_s: float = 0.0, silent_s: float = 0.0, doing: str = "training") -> Heard:
    return Heard(rank, f"process {rank} on n{rank}", Beat(step, doing, still_s), silent_s)


def test_rank_that_does_not_answer_is_named() -> None:
    hang = find_hang([heard(0, still_s=31), heard(1, silent_s=31, doing="validating")], 30)
    assert hang is not None
    assert hang.ranks == (1,)
    assert hang.text == "rank 1 (process 1 on n1) has not answered for 31 s; it was validating after step 9"


def test_rank_that_has_never_answered_is_still_starting() -> None:
    assert find_hang([heard(0, still_s=99), Heard(1, "process 1 on n1", None, 99.0)], 30) is None


def test_ranks_that_wait_for_one_that_loads_or_saves_do_not_hang() -> None:
    assert find_hang([heard(0, still_s=31), heard(1, still_s=0)], 30) is None
    assert find_hang([heard(0, still_s=29), heard(1, still_s=29)], 30) is None


def test_rank_behind_the_others_is_named() -> None:
    hang = find_hang([heard(0, step=9, still_s=31), heard(1, step=8, still_s=40), heard(2, step=9, still_s=31)], 30)
    assert hang is not None
    assert hang.ranks == (1,)
    assert "rank 1 (process 1 on n1) has stood still at step 8 for 31 s, while others are at step 9" in hang.text


def test_all_ranks_are_named_if_none_is_behind() -> None:
    hang = find_hang([heard(0, still_s=31), heard(1, still_s=33)], 30)
    assert hang is not None
    assert (hang.ranks, hang.text) == ((0, 1), "All 2 ranks have stood still at step 9 for 31 s")

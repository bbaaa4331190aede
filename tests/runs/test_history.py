from pathlib import Path

import pytest
from run_lines import line

from vadv_dist.runs.history import RunHistory, data_read
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.runs.records import Line


def start(step: int, time: float, epoch: int = 0) -> Line:
    return line({"kind": "start", "step": step, "epoch": epoch, "steps": 100, "epochs": 4, "workers": 2, "time": time})


def step(number: int, time: float, line_s: float, wait_s: float = 0.0) -> Line:
    return line({"kind": "step", "step": number, "epoch": 0, "line_s": line_s, "data_wait_s": wait_s, "time": time})


def test_goodput_excludes_repeated_steps() -> None:
    history = RunHistory()
    for each in [start(0, 1000.0), step(10, 1010.0, 10.0), step(20, 1020.0, 10.0, wait_s=4.0)]:
        history(each)
    assert history.goodput == pytest.approx((10 + 6) / 20)
    assert history.restarts == 0
    history(start(10, 1050.0))  # killed, and resumed from the checkpoint of step 10
    assert history.step == 10
    history(step(20, 1060.0, 10.0))
    assert history.goodput == pytest.approx((10 + 10) / 60)
    assert history.restarts == 1


def test_time_left_uses_the_pace_of_the_current_attempt() -> None:
    history = RunHistory()
    for each in [start(0, 0.0), step(20, 20.0, 20.0), start(20, 500.0), step(30, 520.0, 15.0)]:
        history(each)
    assert history.seconds_left == pytest.approx(70 * 20 / 10)


def test_restart_discards_epochs_after_the_checkpoint_and_the_fault() -> None:
    history = RunHistory()
    history(start(0, 0.0))
    for number in (10, 20):
        history(line({"kind": "epoch", "step": number, "epoch": number // 10 - 1, "time": 1.0}))
    history(line({"kind": "fault", "step": 25, "epoch": 2, "what": "the loss is not finite", "time": 2.0}))
    assert history.fault is not None
    history(start(10, 3.0, epoch=1))
    assert [each.step for each in history.epoch_lines] == [10]
    assert history.fault is None
    history(start(10, 4.0, epoch=0))  # from a checkpoint of the validation after step 10, which is repeated
    assert history.epoch_lines == []


def test_restarts_are_counted_by_cause() -> None:
    history = RunHistory()
    stop = {"kind": "stop", "step": 10, "epoch": 0, "time": 2.0}
    again = {"kind": "start", "step": 10, "epoch": 0, "steps": 100, "epochs": 4, "workers": 2, "time": 3.0}
    history(start(0, 0.0))
    assert not history.restarts_by_cause
    history(line({**again, "cause": "hang"}))
    history(line({**stop, "cause": "preemption"}))
    history(line({**again, "cause": "preemption"}))
    history(line({**stop, "cause": "SIGUSR1"}))
    history(line(again))
    history(line(again))  # the attempt before it ended without a word
    assert history.restarts_by_cause == {"hang": 1, "preemption": 1, "SIGUSR1": 1, "killed": 1}
    assert (history.restarts, history.preemptions) == (4, 2)


def test_the_slowest_rank_is_compared_with_the_median_of_the_others() -> None:
    history = RunHistory()
    history(start(0, 0.0))
    assert history.slowest_rank is None
    for at in range(1, 31):
        slow = 3.0 if at > 20 else 1.0
        seconds = {"compute_s": [1.0, 1.2, slow, 1.0], "node_bytes": [100, 300]}
        history(line({"kind": "step", "step": at, "epoch": 0, **seconds}))
    assert history.slowest_rank == (2, pytest.approx(3.0 / 1.0))  # of the last ten lines
    assert history.compute_ratios == pytest.approx([1.0 / 1.2, 1.2, 3.0, 1.0 / 1.2])
    assert history.slowest_rank_overall == (2, pytest.approx(50 / 30))
    assert history.node_bytes == [3000, 9000]
    assert data_read(history.node_bytes) == "0.00286 to 0.00858 MiB on each of 2 nodes"
    history(start(30, 40.0))  # perhaps with other ranks on other nodes
    assert history.slowest_rank is None
    assert data_read(history.node_bytes) == ""
    history(line({"kind": "step", "step": 31, "epoch": 0, "compute_s": [1.0, 1.5], "node_bytes": [3 << 30]}))
    assert history.slowest_rank == (1, 1.5)
    assert data_read(history.node_bytes) == "3 GiB"


def test_goodput_excludes_the_time_before_an_extension() -> None:
    history = RunHistory()
    extension = {"kind": "start", "step": 20, "epoch": 2, "steps": 40, "epochs": 4, "workers": 2, "cause": "extended"}
    for each in [start(0, 1000.0), step(20, 1020.0, 15.0), line(extension | {"time": 9020.0}), step(40, 9040.0, 20.0)]:
        history(each)
    assert history.goodput == pytest.approx((15 + 20) / 40)


def test_lines_without_times_give_no_goodput() -> None:
    history = RunHistory()
    history(line({"kind": "step", "step": 1, "epoch": 0, "total": 1.0, "time": 5.0}))
    assert history.goodput is None
    assert history.wait_ratio is None
    assert history.seconds_left is None


def test_the_line_of_an_epoch_is_removed_if_its_validation_is_repeated(tmp_path: Path) -> None:
    def epoch(number: int) -> Line:
        ended = {"kind": "epoch", "epoch": number, "step": 10 * (number + 1), "validation": {}, "train": {}}
        return line({**ended, "best": False, "seconds": 1.0, "time": 1.0})

    log = MetricsLog(tmp_path / "metrics.jsonl")
    for each in [start(0, 0.0), step(10, 1.0, 1.0), epoch(0), step(20, 2.0, 1.0), epoch(1)]:
        log.append(each)
    log.flush()
    log.trim(20, 1)  # stopped during the validation of epoch 1, which is repeated
    assert [(each.kind, each.step) for each in log.lines()] == [("start", 0), ("step", 10), ("epoch", 10), ("step", 20)]
    log.trim(20, 2)  # from the end of epoch 1
    assert len(log.lines()) == 4

"""Only time in steps counts as standing still, and not in the first ones of an attempt."""

import time
from typing import Any

import pytest

from vadv_dist.config import load_config
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.launch.worker import train_rank
from vadv_dist.runs.checkpoint_writer import CheckpointWriter
from vadv_dist.runs.folder import RunFolder
from vadv_dist.training.pulse import Pulse


def test_first_steps_do_not_count() -> None:
    pulse = Pulse()
    for step in (1, 2):
        pulse.step(step)
        time.sleep(0.02)
        assert pulse.read().still_s == 0
    pulse.step(3)
    time.sleep(0.02)
    assert pulse.read().still_s >= 0.02


def test_waiting_for_data_validating_and_saving_do_not_count() -> None:
    pulse = Pulse()
    for step in range(1, 5):
        pulse.step(step)
    with pulse.away("saving a checkpoint"):
        time.sleep(0.05)
        beat = pulse.read()
        assert (beat.step, beat.doing, beat.still_s) == (4, "saving a checkpoint", 0)
    assert pulse.read().still_s < 0.04
    assert pulse.read().doing == "training"
    time.sleep(0.05)
    pulse.wait()
    assert pulse.read().still_s < 0.04


def test_no_time_counts_after_the_loop() -> None:
    pulse = Pulse()
    for step in range(1, 5):
        pulse.step(step)
    pulse.rest("writing the last checkpoint")
    with pulse.away("finishing the run"):
        pass
    time.sleep(0.02)
    beat = pulse.read()
    assert (beat.step, beat.doing, beat.still_s) == (4, "writing the last checkpoint", 0)


@pytest.mark.parametrize("stops_at", [None, 4])
def test_a_slow_last_checkpoint_is_no_hang(write_config, monkeypatch, stops_at: int | None) -> None:
    config = load_config(write_config(), ("--data.batch_size=10", "--trainer.epochs=1"))
    folder = RunFolder.of(config)
    with folder.lock():
        folder.claim(config)
    pulse, beats = Pulse(), []
    write = CheckpointWriter._write

    def slow(self: CheckpointWriter, *arguments: Any) -> Any:
        time.sleep(0.3)
        beats.append(pulse.read())
        return write(self, *arguments)

    monkeypatch.setattr(CheckpointWriter, "_write", slow)

    def asked() -> str:
        return "SIGTERM" if pulse.read().step == stops_at else ""

    state = train_rank(config, Distributed(), LocalWindows, asked=asked, pulse=pulse)
    assert state.step == stops_at or stops_at is None
    assert len(beats) >= 2
    assert {(beat.doing, beat.still_s) for beat in beats[1:]} == {("writing the last checkpoint", 0)}

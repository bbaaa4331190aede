"""Only time in steps counts as standing still, and not in the first ones of an attempt."""

import time

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

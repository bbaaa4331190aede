"""Ctrl-C ends a command within seconds, with one message and a shell's code for it."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vadv_dist.launch.ray_run import fit
from vadv_dist.runs.folder import RunFolder

STOPPED = "vadv: stopped by {}. Completed work is saved; run the same command again to resume.\n"


class Trainer:
    """Takes Ctrl-C for itself where it can, as Ray's does, and never ends."""

    def fit(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(600)


class FailingTrainer:
    def fit(self) -> None:
        raise ValueError("lost")


def test_ctrl_c_is_handled_while_ray_trains() -> None:
    handler = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        fit(Trainer(), lambda: None)
    timer.join()
    assert signal.getsignal(signal.SIGINT) is handler


def test_errors_of_ray_are_passed_on() -> None:
    with pytest.raises(ValueError, match="lost"):
        fit(FailingTrainer(), lambda: None)


def interrupt(command: list[str], when: Callable[[], bool], number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """Send a signal (Ctrl-C's) to a command once something is there; return its code and what it told."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vadv_dist.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 300
    while not when():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    return process.returncode, told


def has_begun(root: Path) -> bool:
    log = RunFolder(root).metrics_path
    return log.is_file() and '"kind": "step"' in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_search_can_be_stopped_while_a_trial_trains(
    write_config, tmp_path: Path, number: signal.Signals, code: int, name: str
) -> None:
    config = str(write_config("hunt"))
    command = ["tune", "--config", config, "--space", "loss_weights", "--no-ray", "--trainer.epochs=400"]
    repeats = tmp_path / "runs" / "hunt-loss_weights"
    begun = lambda: any(has_begun(log.parent) for log in repeats.rglob("metrics.jsonl"))  # noqa: E731
    found, told = interrupt(command, begun, number)
    assert found == code
    assert told.endswith(STOPPED.format(name))
    if number == signal.SIGTERM:  # the trial that ran wrote a checkpoint of its last step
        assert not list(repeats.rglob(".*.partial-*"))
        [log] = repeats.rglob("metrics.jsonl")
        last = [json.loads(line) for line in log.read_text().splitlines()][-1]
        assert last["kind"] == "checkpoint"
        assert (log.parent / "checkpoints" / f"step-{last['step']}" / "manifest.json").is_file()


@pytest.mark.long
@pytest.mark.ray
def test_run_on_ray_can_be_stopped(write_config, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    command = ["train", "--config", str(write_config()), "--trainer.num_workers=2", "--trainer.epochs=400"]
    code, told = interrupt(command, lambda: has_begun(tmp_path / "runs" / "run"))
    assert code == 130
    assert told.endswith(STOPPED.format("Ctrl-C"))

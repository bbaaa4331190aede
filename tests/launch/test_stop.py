"""A run that SIGTERM stops writes a checkpoint, says so, and goes on bit-identically."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from stopping_child import LOG_LINE, signal_stopped, start_until

from vadv_dist.config import load_config
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import StoppedError
from vadv_dist.launch import driver as launch
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.checkpoint_writer import CheckpointWriter
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import CheckpointLine
from vadv_dist.runtime.signals import TerminatedError, sigterm_raises
from vadv_dist.tasks import sentiment
from vadv_dist.training import loop

QUIET = Console(quiet=True, stderr=True)
OPTIONS = ("--data.batch_size=20", "--trainer.eval_batch_size=4")


def final_weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return list_checkpoints(folder.checkpoints)[-1].weights()


def same(a: RunFolder, b: RunFolder) -> bool:
    first, second = final_weights(a), final_weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def kinds(folder: RunFolder, kind: str) -> list[dict]:
    """Lines of a kind in a run's log."""
    return [line for line in map(json.loads, folder.metrics_path.read_text().splitlines()) if line["kind"] == kind]


def on_call(number: int, act: Callable[[], object]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Have a function do something else first at its `number`-th call, counted from 0."""
    count = itertools.count()

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if next(count) == number:
                act()
            return function(*arguments, **options)

        return wrapped

    return decorate


def sigterm() -> None:
    signal.raise_signal(signal.SIGTERM)


class Looks:
    """Replaces the agreement of ranks: counts how often each phase asks, and stops one of them at one such look."""

    def __init__(self, phase: str = "", at: int = -1) -> None:
        self.phase, self.at = phase, at
        self.counts = {"train": 0, "validate": 0}
        self._names = iter(self.counts)

    def __call__(self, *_: object) -> Callable[[], bool]:
        name = next(self._names)

        def look() -> bool:
            self.counts[name] += 1
            return name == self.phase and self.counts[name] - 1 == self.at

        return look


# An epoch has 5 steps here. Training looks at an epoch's start and after each step, validation after each batch.
@pytest.mark.parametrize(
    ("phase", "at", "bound", "step", "epochs"),
    [
        ("train", 0, None, 0, 0),  # before the first step
        ("train", 3, None, 3, 0),
        ("train", 5, None, 5, 0),  # after the epoch's last step
        ("validate", 1, None, 5, 0),
        ("train", 6, None, 5, 1),  # at the next epoch's start
        ("validate", "last", None, 10, 1),
        ("validate", 1, 3, 3, 0),  # in the validation after `trainer.max_steps`
    ],
)
def test_run_stopped_anywhere_ends_bit_identically(
    write_config, monkeypatch, phase: str, at: int | str, bound: int | None, step: int, epochs: int
) -> None:
    options = (*OPTIONS, *(() if bound is None else (f"--trainer.max_steps={bound}",)))
    whole = load_config(write_config("whole"), options)
    undisturbed = Looks()
    monkeypatch.setattr(loop, "StopAgreement", undisturbed)
    result = launch.train(whole, QUIET).to_json()
    assert result["steps"] == (bound or 10)

    config = load_config(write_config("told"), options)
    folder = RunFolder.of(config)
    with folder.lock():
        folder.claim(config)
    monkeypatch.setattr(loop, "StopAgreement", Looks(phase, undisturbed.counts[phase] - 1 if at == "last" else int(at)))
    state = train_locally(config, lambda line: None, lambda: False)
    assert (state.stopped, state.step) == (None, step)
    assert [checkpoint.step for checkpoint in list_checkpoints(folder.checkpoints)][-1:] == ([step] if step else [])
    assert len(kinds(folder, "epoch")) == epochs
    assert folder.result() is None
    assert not folder.student.exists()

    monkeypatch.setattr(loop, "StopAgreement", Looks())
    again = launch.train(config, QUIET).to_json()
    assert same(RunFolder.of(whole), folder)
    assert {again[key] == result[key] for key in ("validation", "best_step", "steps", "epochs", "stopped")} == {True}
    steps = [line["step"] for line in kinds(folder, "step")]
    assert steps == list(range(1, result["steps"] + 1))


def test_sigterm_finishes_the_step_and_reports_the_checkpoint(write_config, monkeypatch, capsys) -> None:
    config = load_config(write_config(), OPTIONS)
    monkeypatch.setattr(TorchEngine, "step", on_call(1, sigterm)(TorchEngine.step))
    with sigterm_raises(), pytest.raises(StoppedError) as stopped:
        launch.train(config, Console(stderr=True, width=400))
    assert stopped.value.exit_code == 143
    assert str(stopped.value) == (
        "stopped by SIGTERM at step 2 of 10, whose checkpoint is complete. Run the same command again to resume "
        f"{RunFolder.of(config).root}."
    )
    assert (
        "SIGTERM: finishing the step and writing a checkpoint within 30 s (trainer.grace_s)" in capsys.readouterr().err
    )
    with RunFolder.of(config).lock():  # nobody holds it any more
        pass


def test_sigterm_before_the_first_step_leaves_no_checkpoint(write_config, monkeypatch) -> None:
    monkeypatch.setattr(loop.Trainer, "fit", on_call(0, sigterm)(loop.Trainer.fit))
    with sigterm_raises(), pytest.raises(StoppedError, match=r"^SIGTERM arrived before the first step\. Run the same"):
        launch.train(load_config(write_config(), OPTIONS), QUIET)


def test_sigterm_during_a_checkpoint_completes_it(write_config, monkeypatch) -> None:
    config = load_config(write_config(), (*OPTIONS, "--trainer.checkpoint_every_steps=2"))
    monkeypatch.setattr(CheckpointWriter, "copy", on_call(0, sigterm)(CheckpointWriter.copy))
    with sigterm_raises(), pytest.raises(StoppedError, match="at step 2 of 10"):
        launch.train(config, QUIET).to_json()
    folder = RunFolder.of(config)
    assert [line["step"] for line in kinds(folder, "checkpoint")] == [2]  # once
    list_checkpoints(folder.checkpoints)[-1].verify()


def test_sigterm_during_the_export_completes_it(write_config, monkeypatch) -> None:
    config = load_config(write_config(), OPTIONS)
    monkeypatch.setattr(sentiment, "export_student", on_call(0, sigterm)(sentiment.export_student))
    with sigterm_raises(), pytest.raises(StoppedError, match=r"while the run was finishing\. .* is complete\.$"):
        launch.train(config, QUIET)
    assert launch.train(config, QUIET).steps == 10
    assert (RunFolder.of(config).student / "model.safetensors").is_file()


def test_second_signal_exits_immediately_without_partial_files(write_config, monkeypatch) -> None:
    config = load_config(write_config(), (*OPTIONS, "--trainer.checkpoint_every_steps=1"))

    def twice() -> None:
        sigterm()
        sigterm()

    write = CheckpointWriter._write

    def half(self: CheckpointWriter, job: Any, *arguments: Any) -> Any:
        assert job.step == 1 or job.given_up.wait(30)
        return write(self, job, *arguments)

    monkeypatch.setattr(CheckpointWriter, "_write", half)
    monkeypatch.setattr(TorchEngine, "step", on_call(2, twice)(TorchEngine.step))
    with sigterm_raises(), pytest.raises(TerminatedError):
        launch.train(config, QUIET).to_json()
    assert [path.name for path in RunFolder.of(config).checkpoints.iterdir()] == ["step-1"]


@pytest.mark.parametrize("complete", [False, True])
def test_message_after_the_grace_period_promises_only_complete_checkpoints(complete: bool) -> None:
    stop = launch._Stop(QUIET, 30.0)
    assert stop.safe() == "There is no checkpoint yet: run the same command again to start over."
    stop.see(CheckpointLine(step=5, epoch=0, seconds=0.1))
    assert "step 5 may be incomplete: " in stop.safe()
    assert stop.safe().endswith("otherwise to start over.")
    stop.see(CheckpointLine(step=8, epoch=0, seconds=0.1, resumable=not complete))
    if complete:  # weights alone were begun after it
        assert stop.safe() == "The checkpoint of step 5 is complete: run the same command again to resume from it."
    else:
        assert "step 8 may be incomplete: " in stop.safe()
        assert stop.safe().endswith("otherwise from step 5.")


def test_run_waiting_for_data_stops_with_a_checkpoint(write_config, monkeypatch) -> None:
    """A store that does not answer holds back the reading thread, not the end of the run."""
    config = load_config(write_config(), OPTIONS)
    answers = threading.Event()
    original = LocalWindows.get
    count = itertools.count()

    def get(self: LocalWindows, shards: Any, upcoming: Any) -> Any:
        if next(count) == 2:  # that of the second epoch, after the validation's
            sigterm_soon.start()
            answers.wait(60)
        return original(self, shards, upcoming)

    sigterm_soon = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(LocalWindows, "get", get)
    began = time.monotonic()
    with sigterm_raises(), pytest.raises(StoppedError, match="at step 5 of 10"):
        launch.train(config, QUIET).to_json()
    assert time.monotonic() - began < 30
    answers.set()


@pytest.mark.slow
def test_command_stopped_by_sigterm_resumes_bit_identically(write_config, tmp_path: Path) -> None:
    options = ["--data.batch_size=4", "--trainer.epochs=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def arguments(name: str) -> list[str]:
        return ["train", "--config", str(write_config(name)), *options]

    def complete(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vadv_dist.cli", *arguments(name)]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    assert complete("whole").returncode == 0
    whole, told = RunFolder(tmp_path / "runs" / "whole"), RunFolder(tmp_path / "runs" / "told")
    process = start_until(LOG_LINE, told.metrics_path, arguments("told"), count=7, env=environment)
    said, errors = signal_stopped(process, signal.SIGTERM)
    assert (process.returncode, said) == (143, "")
    [checkpoint] = list_checkpoints(told.checkpoints)[-1:]
    total = list_checkpoints(whole.checkpoints)[-1].step
    assert errors.endswith(
        f"vadv: stopped by SIGTERM at step {checkpoint.step} of {total}, whose checkpoint is complete. Run the same "
        f"command again to resume {told.root}.\n"
    )
    assert 5 <= checkpoint.step < total
    assert not list(told.root.rglob(".*.partial-*"))
    done = complete("told")
    assert done.returncode == 0, done.stderr
    assert f"resuming from step {checkpoint.step}" in done.stderr
    assert same(whole, told)

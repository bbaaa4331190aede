"""When a run saves checkpoints and what it keeps."""

import errno
import itertools
import json
import os
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.engines.distributed import Distributed
from vadv_dist.errors import MachineError, UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import Checkpoint, checkpoint_at, list_checkpoints
from vadv_dist.runs.checkpoint_writer import CheckpointWriter
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage import read_json
from vadv_dist.training import checkpoints as module
from vadv_dist.training.checkpoints import RunCheckpoints
from vadv_dist.training.evaluate import evaluate_run

QUIET = Console(quiet=True, stderr=True)
BY_TIME = "--trainer.checkpoint_every_epochs=null"  # the shared configuration of tests saves after each epoch


def run(config_path: Path, *overrides: str) -> tuple[RunFolder, dict[str, Any]]:
    config = load_config(config_path, overrides)
    return RunFolder.of(config), train(config, QUIET).to_json()


def lines(folder: RunFolder) -> list[dict[str, Any]]:
    return [*map(json.loads, folder.metrics_path.read_text().splitlines())]


def saved(folder: RunFolder, *, resumable: bool) -> list[int]:
    found = [line for line in lines(folder) if line["kind"] == "checkpoint"]
    return [line["step"] for line in found if line.get("resumable", True) == resumable]


def timeless(folder: RunFolder) -> list[dict[str, Any]]:
    """All lines but those of checkpoints, without times."""
    times = {"time", "samples_per_s", "tokens_per_s", "data_wait_s", "line_s", "seconds", "node_bytes"}
    kept = [line for line in lines(folder) if line["kind"] != "checkpoint"]
    return [{key: value for key, value in line.items() if key not in times} for line in kept]


def test_short_run_saves_its_first_epoch_its_end_and_the_weights_of_epochs_that_were_the_best(write_config) -> None:
    folder, result = run(write_config(), BY_TIME, "--trainer.epochs=4", "--optimizer.lr=3e-3")
    epochs = [line for line in lines(folder) if line["kind"] == "epoch"]
    best = [line["step"] for line in epochs if line["best"]]
    assert len(best) > 1
    first = epochs[0]["step"]
    assert saved(folder, resumable=True) == [first, result["steps"]]
    assert saved(folder, resumable=False) == [step for step in best if step not in (first, result["steps"])]
    kept = {c.step: c.is_resumable for c in list_checkpoints(folder.checkpoints)}
    assert kept == {result["best_step"]: result["best_step"] == result["steps"], result["steps"]: True}


def test_time_decides_at_logged_steps_and_ends_of_epochs_and_changes_no_other_line(write_config) -> None:
    options = ("--telemetry.log_every_steps=4", "--trainer.epochs=3")
    rarely, result = run(write_config("rarely"), BY_TIME, *options)
    often, _ = run(write_config("often"), BY_TIME, *options, "--trainer.checkpoint_every_s=0")
    ends = [line["step"] for line in lines(often) if line["kind"] == "epoch"]
    assert ends[0] % 4
    logged = range(4, result["steps"] + 1, 4)
    assert saved(often, resumable=True) == sorted({*logged, *ends})
    assert saved(rarely, resumable=True) == [ends[0], result["steps"]]
    assert timeless(often) == timeless(rarely)


def test_checkpoints_follow_the_clock(write_config, monkeypatch) -> None:
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 50.0 * next(looks), perf_counter=time.perf_counter)
    monkeypatch.setattr(module, "time", clock)  # 50 seconds between any two looks, so 300 seconds are 6 looks
    folder, result = run(write_config(), BY_TIME, "--trainer.epochs=3", "--trainer.keep_best=9")
    periodic = saved(folder, resumable=True)
    assert 3 <= len(periodic) <= result["steps"] / 4
    assert max(after - before for before, after in pairwise([0, *periodic])) <= 6


@pytest.mark.parametrize("every", [1, 2, 3])
def test_checkpoints_after_every_few_epochs(write_config, every: int) -> None:
    folder, _ = run(write_config(), "--trainer.epochs=5", f"--trainer.checkpoint_every_epochs={every}")
    ends = [line["step"] for line in lines(folder) if line["kind"] == "epoch"]
    assert saved(folder, resumable=True) == [
        ends[epoch] for epoch in range(5) if (epoch + 1) % every == 0 or epoch in (0, 4)
    ]


def test_only_the_clock_of_rank_0_counts() -> None:
    trainer = TrainerConfig(checkpoint_every_s=0.0)
    ranks = [RunCheckpoints(trainer, Path(), Any, Any, Distributed(rank, 2)) for rank in range(2)]  # type: ignore[arg-type]
    assert [rank.clock() for rank in ranks] == [1, 0]
    for rank in ranks:
        assert not rank.is_due_in_epoch(1)
        rank.agree(sum(rank.clock() for rank in ranks))
        assert rank.is_due_in_epoch(1)


class CutOffError(Exception):
    pass


@pytest.mark.parametrize("every_s", ["300", "null"])
def test_run_killed_in_its_second_epoch_does_not_start_over(write_config, monkeypatch, every_s: str) -> None:
    options = (BY_TIME, f"--trainer.checkpoint_every_s={every_s}", "--trainer.epochs=3")
    record = module.TrainState.record

    def cut(self: Any, *arguments: Any, **options: Any) -> bool:
        if self.epoch == 1:
            raise CutOffError
        return record(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module.TrainState, "record", cut)
        with pytest.raises(CutOffError):
            run(write_config(), *options)
    folder, result = run(write_config(), *options)
    starts = [line["step"] for line in lines(folder) if line["kind"] == "start"]
    assert starts == [0, result["steps"] // 3 if every_s == "300" else 0]


def test_run_killed_epochs_after_its_last_checkpoint_repeats_them(write_config, monkeypatch) -> None:
    """Lines and best weights of the epochs in between are those of an undisturbed run."""
    options = ("--trainer.epochs=5", "--trainer.checkpoint_every_epochs=2", "--trainer.keep_best=2")
    whole, result = run(write_config("whole"), *options)
    per_epoch = result["steps"] // 5
    record = module.TrainState.record

    def cut(self: Any, *arguments: Any, **options: Any) -> bool:
        if self.epoch == 3:
            raise CutOffError
        return record(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module.TrainState, "record", cut)
        with pytest.raises(CutOffError):
            run(write_config("cut"), *options)
    folder = RunFolder.of(load_config(write_config("cut")))
    assert {line["epoch"] for line in lines(folder) if line["kind"] == "epoch"} == {0, 1, 2}
    assert max(c.step for c in list_checkpoints(folder.checkpoints) if c.is_resumable) == 2 * per_epoch
    run(write_config("cut"), *options)
    starts = [line["step"] for line in lines(folder) if line["kind"] == "start"]
    assert starts == [0, 2 * per_epoch]
    ours, theirs = ([x for x in timeless(f) if x["kind"] != "start"] for f in (folder, whole))
    assert ours == theirs
    for kept, other in zip(list_checkpoints(folder.checkpoints), list_checkpoints(whole.checkpoints), strict=True):
        assert (kept.step, kept.is_resumable) == (other.step, other.is_resumable)
        assert {n: e["sha256"] for n, e in kept.files.items() if n.startswith(("weights", "moments"))} == {
            n: e["sha256"] for n, e in other.files.items() if n.startswith(("weights", "moments"))
        }


@pytest.mark.parametrize("damaged", ["last", "before", "last manifest", "manifest before"])
def test_a_damaged_checkpoint_is_given_up_for_the_one_before(write_config, monkeypatch, capsys, damaged: str) -> None:
    options = ("--trainer.epochs=3", "--trainer.checkpoint_every_steps=2", BY_TIME)
    whole, _ = run(write_config("whole"), *options)
    publish, count = CheckpointWriter._complete, 0

    def cut(self: CheckpointWriter, *arguments: Any) -> None:
        nonlocal count
        publish(self, *arguments)
        count += 1
        if count == 6:
            raise OSError(errno.EIO, "the process ends")

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "_complete", cut)
        with pytest.raises(OSError, match="the process ends"):
            run(write_config("cut"), *options)
    folder = RunFolder.of(load_config(write_config("cut")))
    before, last = [checkpoint for checkpoint in list_checkpoints(folder.checkpoints) if checkpoint.is_resumable]
    if damaged == "last":
        file = last.path / "moments-0.safetensors"
    elif damaged == "before":
        [file] = before.path.glob("state-*.json")
    else:
        file = (last if damaged == "last manifest" else before).path / "manifest.json"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data if "manifest" not in damaged else data[: len(data) // 2])
    console = Console(stderr=True)
    train(load_config(write_config("cut"), options), console)
    said = capsys.readouterr().err
    begins = before.step if damaged.startswith("last") else last.step
    assert (f"{file} is damaged; this checkpoint is left out and removed" in said) == ("manifest" in damaged)
    assert (f"{file} does not match manifest.json" in said) == (damaged == "last")
    assert (f"going back to step {before.step}" in said) == (damaged == "last")
    assert [line["step"] for line in lines(folder) if line["kind"] == "start"] == [0, begins]
    ours, theirs = ([x for x in timeless(f) if x["kind"] != "start"] for f in (folder, whole))
    assert ours == theirs
    kept = [(c.step, c.is_resumable) for c in list_checkpoints(folder.checkpoints)]
    assert kept == [(c.step, c.is_resumable) for c in list_checkpoints(whole.checkpoints)]
    assert sum(is_resumable for _, is_resumable in kept) == 1


def test_best_weights_alone_are_evaluated_and_exported(write_config) -> None:
    # A rate of practically nothing: the first epoch stays the best.
    folder, result = run(write_config(), "--optimizer.lr=1e-30", "--trainer.epochs=3")
    best = checkpoint_at(folder.checkpoints, result["best_step"])
    assert not best.is_resumable
    weights = best.weights()
    assert {name.split(".")[0] for name in weights} == {"student", "teacher"}
    assert evaluate_run(folder.root, "valid").metrics["student"]["mae"] == pytest.approx(result["validation"]["mae"])
    assert (folder.student / "model.safetensors").is_file()


def test_training_waits_for_the_copy_and_not_for_the_disk(write_config, monkeypatch) -> None:
    write = CheckpointWriter._write
    monkeypatch.setattr(CheckpointWriter, "_write", lambda *arguments: time.sleep(0.3) or write(*arguments))
    folder, _ = run(write_config(), "--trainer.epochs=1", "--trainer.checkpoint_every_steps=4")
    first, second, *_ = [line for line in lines(folder) if line["kind"] == "checkpoint"]
    assert first["seconds"] < 0.2
    assert second["seconds"] > 0.2  # it waited for the first, whose two files take 0.6 seconds
    assert "last_write_s" not in first
    assert second["last_write_s"] > 0.6


def test_result_counts_blocked_and_background_seconds_and_the_wait_for_the_last_checkpoint(
    write_config, monkeypatch
) -> None:
    write = CheckpointWriter._write
    monkeypatch.setattr(CheckpointWriter, "_write", lambda *arguments: time.sleep(0.3) or write(*arguments))
    folder, result = run(write_config(), "--trainer.epochs=2")
    first, last = [line for line in lines(folder) if line["kind"] == "checkpoint"]
    waited_s = result["checkpoint_blocked_s"] - first["seconds"] - last["seconds"]
    assert 0.5 < waited_s < result["wall_time_s"]
    # Each of the two checkpoints has two files.
    assert result["checkpoint_write_s"] == pytest.approx(last["last_write_s"] + waited_s, abs=0.2)
    assert result["checkpoint_write_s"] > 1.2
    epoch = [line for line in lines(folder) if line["kind"] == "epoch"][-1]
    assert result["wall_time_s"] > epoch["seconds"] + waited_s


def test_disk_that_fills_up_ends_the_run_at_one_of_the_next_steps(write_config, monkeypatch) -> None:
    sync, count = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal count
        count += threading.current_thread().name == "vadv-checkpoint"
        if count > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    config = load_config(write_config(), ("--trainer.epochs=400", "--trainer.checkpoint_every_steps=3"))
    with pytest.raises(MachineError, match=r"No space left .* earlier checkpoints are complete"):
        train(config, QUIET)
    folder = RunFolder.of(config)
    assert not list(folder.checkpoints.glob(".*"))
    for checkpoint in list_checkpoints(folder.checkpoints):
        checkpoint.verify()


def test_full_disk_at_the_end_of_a_run_is_no_success(write_config, monkeypatch) -> None:
    def full(self: Any, job: Any, name: str, image: Any) -> None:
        raise MachineError("No space left on the disk")

    monkeypatch.setattr(CheckpointWriter, "_write", full)
    config = load_config(write_config(), (BY_TIME, "--trainer.max_steps=2"))
    with pytest.raises(MachineError, match="No space left"):
        train(config, QUIET)
    assert RunFolder.of(config).result() is None


def test_run_of_an_older_format_is_refused_with_one_message(write_config, monkeypatch) -> None:
    options = ("--trainer.max_steps=2",)
    folder, _ = run(write_config(), *options)
    folder.result_path.unlink()
    [checkpoint] = list_checkpoints(folder.checkpoints)
    manifest = read_json(checkpoint.path / "manifest.json")
    (checkpoint.path / "manifest.json").write_text(json.dumps({"step": manifest["step"], "files": {}}))
    with pytest.raises(UserError, match=r"checkpoint format 1, expected 2.*--run\.name"):
        run(write_config(), *options)


def test_damaged_checkpoint_is_not_resumed(write_config) -> None:
    folder, _ = run(write_config(), "--trainer.max_steps=2")
    folder.result_path.unlink()
    [checkpoint] = list_checkpoints(folder.checkpoints)
    assert isinstance(checkpoint, Checkpoint)
    path = checkpoint.path / "moments-0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(MachineError, match=r"moments-0\.safetensors does not match manifest\.json"):
        run(write_config(), "--trainer.max_steps=2")

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from stopping_child import LOG_LINE, signal_stopped, start_until

from vadv_dist.config import load_config
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.synth import make_dataset
from vadv_dist.engines.adamw import ClippedAdamW
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import MachineError, UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.runs.records import Line
from vadv_dist.runs.state import TrainState
from vadv_dist.storage import read_json
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.loop import planned_steps
from vadv_dist.training.splits import Splits

QUIET = Console(quiet=True, stderr=True)


def run(config_path: Path, *overrides: str) -> tuple[RunFolder, dict]:
    config = load_config(config_path, overrides)
    return RunFolder.of(config), train(config, QUIET).to_json()


def lines(folder: RunFolder, kind: str) -> list[dict]:
    return [line for line in map(json.loads, folder.metrics_path.read_text().splitlines()) if line["kind"] == kind]


def final_weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return list_checkpoints(folder.checkpoints)[-1].weights()


def same(a: RunFolder, b: RunFolder) -> bool:
    first, second = final_weights(a), final_weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_run_writes_all_documented_files(write_config) -> None:
    folder, result = run(write_config())
    assert folder.config_path.is_file()
    assert (folder.student / "model.safetensors").is_file()
    assert result == read_json(folder.result_path)
    steps, epochs = lines(folder, "step"), lines(folder, "epoch")
    assert [line["step"] for line in steps] == list(range(1, result["steps"] + 1))
    assert [line["epoch"] for line in epochs] == [0, 1]
    terms = {"video_regression", "text_regression", "video_classification", "prompt_to_video", "video_to_text"}
    assert terms | {"total", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "data_wait_s"} <= steps[0].keys()
    assert set(epochs[0]["validation"]) == {"student", "video", "prompt"}
    assert result["validation"]["mae"] == min(e["validation"]["student"]["mae"] for e in epochs)
    assert result["data"][0]["rows"]["train"] == sum(
        shard["rows"]
        for shard in read_json(Path(result["data"][0]["uri"]) / "dataset.json")["splits"]["train"]["shards"]
    )


def test_logged_total_is_the_optimised_weighted_sum(write_config) -> None:
    folder, _ = run(write_config(), "--trainer.max_steps=3", "--trainer.accumulate=3")
    for line in lines(folder, "step"):
        expected = (
            line["video_regression"]
            + 10 * line["text_regression"]
            + line["video_classification"]
            + 10 * line["prompt_to_video"]
            + line["video_to_text"]
        )
        assert line["total"] == pytest.approx(expected, rel=1e-5)


NO_DROPOUT = ("--student.dropout=0", "--student.encoder_dropout=0")


def test_micro_batches_follow_the_curve_of_the_whole_batch(write_config) -> None:
    one, _ = run(write_config("one"), *NO_DROPOUT)
    four, _ = run(write_config("four"), *NO_DROPOUT, "--trainer.accumulate=4")
    for a, b in zip(lines(one, "step"), lines(four, "step"), strict=True):
        assert b["total"] == pytest.approx(a["total"], rel=1e-5)


def test_one_process_repeats_bit_identically(write_config) -> None:
    first, _ = run(write_config("first"))
    second, _ = run(write_config("second"))
    assert same(first, second)


def test_run_resumes_from_nan_metrics(write_config, made: Path, monkeypatch) -> None:
    # One clip of validation: its correlation does not exist.
    original = SentimentTask.metrics
    monkeypatch.setattr(
        SentimentTask, "metrics", lambda self, p, y: original(self, {k: v[:1] for k, v in p.items()}, y[:1])
    )
    folder, result = run(write_config())
    assert result["validation"]["corr"] is None
    state = TrainState.from_json(list_checkpoints(folder.checkpoints)[-1].state())
    assert math.isnan(state.best_metrics["student"]["corr"])


def test_max_steps_holds_if_epochs_differ_in_length(write_config, tmp_path: Path) -> None:
    # Large and small shards by turns: how many windows there are, and so partial batches, depends on the epoch.
    data = tmp_path / "uneven"
    with DatasetWriter(data, features={}, label=LabelSpec(), provenance={}, shard_rows=7) as writer:
        for i in range(7 * 8 + 3):
            words = "good " * (4000 if i % 14 < 7 else 1)
            writer.write("train", Clip(f"c{i}", f"v{i}", words, 1.0, "test"))
        writer.write("valid", Clip("w", "w", "fine", 1.0, "test"))
    options = ("--objective.kind=none", "--data.window_bytes=300000", "--data.batch_size=4", "--trainer.epochs=4")
    config = load_config(write_config(uri=data), options)
    split = Splits.open(config).train
    lengths = [split.plan(config.data, seed=config.run.seed, epoch=e).num_steps for e in range(config.trainer.epochs)]
    bound = planned_steps(config, split) + 1
    assert sum(lengths) > bound  # or the bound would bind nothing
    _, result = run(write_config(uri=data), *options, f"--trainer.max_steps={bound}")
    assert result["steps"] == bound
    assert result["stopped"] == "max_steps"


class CutOffError(Exception):
    pass


def cut_off_at(step: int, monkeypatch, config_path: Path, *options: str) -> None:
    """Run until a step's line is written, and no further."""
    original = MetricsLog.append

    def cut(self: MetricsLog, line: Line) -> None:
        original(self, line)
        if line.step == step:
            raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", cut)
        with pytest.raises(CutOffError):
            train(load_config(config_path, options), QUIET)


@pytest.mark.parametrize("stop_at", [4, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 8))])
def test_run_interrupted_inside_an_epoch_ends_bit_identically(write_config, stop_at: int, monkeypatch) -> None:
    options = ("--trainer.checkpoint_every_steps=2", "--data.batch_size=20")
    whole, result = run(write_config("whole"), *options)
    assert result["steps"] > stop_at
    cut_off_at(stop_at, monkeypatch, write_config("cut"), *options)
    config = load_config(write_config("cut"), options)
    train(config, QUIET)
    cut_off = RunFolder.of(config)
    assert same(whole, cut_off)
    timeless = {
        "time",
        "samples_per_s",
        "tokens_per_s",
        "data_wait_s",
        "line_s",
        "seconds",
        "last_write_s",
        "node_bytes",
    }
    a, b = (
        [
            {k: v for k, v in x.items() if k not in timeless}
            for x in map(json.loads, f.metrics_path.read_text().splitlines())
        ]
        for f in (whole, cut_off)
    )
    starts = [line for line in b if line["kind"] == "start"]
    assert len(starts) == 2
    assert [line for line in a if line["kind"] != "start"] == [line for line in b if line["kind"] != "start"]


@pytest.mark.slow
def test_process_killed_inside_an_epoch_resumes_bit_identically(write_config, tmp_path: Path) -> None:
    options = ["--trainer.checkpoint_every_steps=3", "--data.batch_size=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(name: str) -> list[str]:
        return [sys.executable, "-m", "vadv_dist.cli", *arguments(name)]

    def arguments(name: str) -> list[str]:
        return ["train", "--config", str(write_config(name)), *options]

    subprocess.run(command("whole"), check=True, capture_output=True, env=environment)
    whole, killed = RunFolder(tmp_path / "runs" / "whole"), RunFolder(tmp_path / "runs" / "killed")
    process = start_until(LOG_LINE, killed.metrics_path, arguments("killed"), count=10, env=environment)
    signal_stopped(process, signal.SIGKILL)
    steps_in_epoch = lines(whole, "epoch")[0]["step"]
    assert not killed.result_path.exists()
    assert list_checkpoints(killed.checkpoints)[-1].step < 2 * steps_in_epoch
    done = subprocess.run(command("killed"), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "resuming from step" in done.stderr
    assert same(whole, killed)


@pytest.mark.slow
def test_process_killed_while_a_checkpoint_is_written_resumes_from_the_one_before(write_config, tmp_path: Path) -> None:
    options = ["--trainer.checkpoint_every_steps=3", "--data.batch_size=4"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def arguments(name: str) -> list[str]:
        return ["train", "--config", str(write_config(name)), *options]

    whole, killed = RunFolder(tmp_path / "runs" / "whole"), RunFolder(tmp_path / "runs" / "killed")
    train(load_config(write_config("whole"), options), QUIET)
    # It stops in the thread, after a file of the second checkpoint.
    half = killed.checkpoints / ".step-6.partial-*" / "weights-0.safetensors"
    write = "vadv_dist.runs.checkpoint_writer:CheckpointWriter._write"
    signal_stopped(start_until(write, half, arguments("killed"), env=environment), signal.SIGKILL)
    assert [c.step for c in list_checkpoints(killed.checkpoints)] == [3]
    assert len(list(killed.checkpoints.glob(".step-6.partial-*"))) == 1
    command = [sys.executable, "-m", "vadv_dist.cli", *arguments("killed")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "resuming from step 3 of" in done.stderr
    assert not list(killed.checkpoints.glob(".*"))
    assert same(whole, killed)


def test_a_complete_run_is_not_trained_again(write_config) -> None:
    folder, first = run(write_config())
    before = folder.metrics_path.read_bytes()
    assert run(write_config())[1] == first
    assert folder.metrics_path.read_bytes() == before


def test_changed_config_under_the_same_name_is_rejected_with_the_differences(write_config) -> None:
    run(write_config(), "--trainer.max_steps=1")
    with pytest.raises(UserError, match=r"another configuration:\n  optimizer.lr: 0.001 there, 0.002 now") as refused:
        run(write_config(), "--trainer.max_steps=1", "--optimizer.lr=0.002")
    assert "--run.name" in str(refused.value)


def test_run_without_a_checkpoint_is_replaced_by_a_corrected_one(write_config) -> None:
    with pytest.raises(UserError, match=r"with a lower optimizer\.lr"):
        run(write_config(), "--optimizer.lr=1e30", "--optimizer.clip_norm=null")
    folder, result = run(write_config(), "--trainer.max_steps=2", "--data.batch_size=8")
    assert result["steps"] == 2
    assert RunFolder.open(folder.root).config().data.batch_size == 8
    assert len(lines(folder, "start")) == 1  # the other run's lines are gone
    assert not lines(folder, "fault")


def test_folder_that_is_not_a_run_is_not_overwritten(write_config, tmp_path: Path) -> None:
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists but is not a run"):
        run(write_config())
    assert [path.name for path in (tmp_path / "runs" / "run").iterdir()] == ["thesis.txt"]


def test_remains_of_a_start_killed_at_its_first_write_are_ignored(write_config, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / ".config.yaml.partial-1").write_text("run:")
    run(write_config(), "--trainer.max_steps=1")
    assert not list(folder.glob(".*.partial-*"))


def test_run_resumes_under_another_spelling_of_its_storage(write_config, tmp_path: Path) -> None:
    run(write_config(), "--trainer.max_steps=1")
    _, result = run(write_config(storage=tmp_path / "x" / ".." / "runs"), "--trainer.max_steps=1")
    assert result["steps"] == 1


def test_run_is_not_resumed_on_other_data(write_config, made: Path, tmp_path: Path, monkeypatch) -> None:
    data = tmp_path / "data"
    shutil.copytree(made, data)
    options = ("--trainer.checkpoint_every_steps=1",)
    cut_off_at(2, monkeypatch, write_config(uri=data), *options)
    raw = read_json(data / "dataset.json")
    raw["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
    (data / "dataset.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"started on different data: .*--run.name"):
        run(write_config(uri=data), *options)


def test_weights_after_a_nan_gradient_are_not_checkpointed(write_config, monkeypatch) -> None:
    original = ClippedAdamW.step
    monkeypatch.setattr(ClippedAdamW, "step", lambda self: original(self) * float("nan"))
    with pytest.raises(UserError, match=r"gradient norm nan .* lower optimizer.lr"):
        run(write_config(), "--trainer.checkpoint_every_steps=1")
    folder = RunFolder.of(load_config(write_config()))
    assert not list_checkpoints(folder.checkpoints)


def test_gpu_out_of_memory_is_reported_with_advice(write_config, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")

    monkeypatch.setattr(TorchEngine, "step", full)
    with pytest.raises(MachineError, match=r"2.00 GiB. This \w+ at step 0; .*engine.zero_stage"):
        run(write_config())


def test_run_in_use_is_locked(write_config) -> None:
    config = load_config(write_config())
    with RunFolder.of(config).lock(), pytest.raises(UserError, match="by another process"):
        train(config, QUIET)


def test_training_never_opens_the_test_split(write_config, made: Path, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    shutil.copytree(made, blind)
    shutil.rmtree(blind / "test")
    folder, _ = run(write_config(uri=blind), "--trainer.max_steps=2")
    assert folder.result_path.is_file()


def test_data_set_without_validation_is_rejected_before_anything_is_written(write_config, made, tmp_path) -> None:
    without = tmp_path / "without"
    shutil.copytree(made, without)
    raw = read_json(without / "dataset.json")
    del raw["splits"]["valid"]
    (without / "dataset.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"no 'valid' split \(it has: train, test\).*--valid-fraction"):
        run(write_config(uri=without))
    assert not (tmp_path / "runs").exists()


def test_training_stops_early_and_keeps_the_best_and_the_last(write_config) -> None:
    # A rate of practically nothing: no epoch after the first is better.
    folder, result = run(
        write_config(), "--optimizer.lr=1e-30", "--trainer.patience=2", "--trainer.epochs=9", "--trainer.keep_best=2"
    )
    assert result["stopped"] == "patience"
    assert result["epochs"] == 3
    assert result["best_epoch"] == 0
    kept = [c.step for c in list_checkpoints(folder.checkpoints)]
    assert result["best_step"] in kept
    assert kept[-1] == result["steps"]
    assert len(kept) == 3


def test_nan_loss_ends_the_run_with_advice(write_config) -> None:
    with pytest.raises(UserError, match=r"loss became .* lower optimizer.lr"):
        run(write_config(), "--optimizer.lr=1e30", "--optimizer.clip_norm=null", "--trainer.epochs=9")
    [folder] = (RunFolder(path) for path in (write_config().parent / "runs").iterdir())
    [fault] = lines(folder, "fault")
    assert fault["what"] == "the loss is not finite"


def test_log_contains_starts_checkpoints_and_durations(write_config) -> None:
    folder, result = run(write_config(), "--trainer.checkpoint_every_steps=2", "--telemetry.peak_flops=1e12")
    [start] = lines(folder, "start")
    assert (start["step"], start["steps"], start["epochs"], start["workers"]) == (0, result["steps"], 2, 1)
    steps, checkpoints = lines(folder, "step"), lines(folder, "checkpoint")
    half = result["steps"] // 2
    inner = [step for step in range(2, result["steps"], 2) if step != half]
    assert [line["step"] for line in checkpoints] == sorted([*inner, half, result["steps"]])
    assert all(line["seconds"] > 0 for line in checkpoints)
    for line in steps:
        assert line["samples_per_s"] * line["line_s"] <= 16.001
        assert 0 <= line["data_wait_s"] <= line["line_s"]
        assert 0 < line["mfu"] < 1
    # Neither validation nor checkpoints are in the steps' own seconds, but both are in the wall time.
    spent_s = sum(line["line_s"] for line in steps) + result["checkpoint_blocked_s"]
    assert spent_s < result["wall_time_s"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("--objective.kind=none",),
        ("--objective.step1=false",),
        ("--objective.step2=false",),
        ("--objective.route=direct", "--objective.detach_targets=true"),
        ("--objective.detach_targets=true",),
        ("--teacher.use_face=false",),
        ("--teacher.use_visual=false", "--teacher.prompting=static"),
        ("--teacher.prompting=static",),
        ("--teacher.prompting=none",),
        ("--teacher.similarity=cosine",),
        ("--student.pooling=mean",),
        ("--student.freeze_encoder=true",),
        ("--student.gradient_checkpointing=true",),
        ("--trainer.precision=bf16",),
    ],
)
def test_each_ablation_switch_trains(write_config, overrides: tuple[str, ...]) -> None:
    folder, result = run(write_config(), "--trainer.max_steps=2", *overrides)
    assert result["steps"] == 2
    parts = {name.split(".")[0] for name in final_weights(folder)}
    assert parts == ({"student"} if "--objective.kind=none" in overrides else {"student", "teacher"})


def test_audio_trains_as_a_third_branch(write_config, tmp_path: Path) -> None:
    from vadv_dist.data.synth import make_dataset

    data = make_dataset(tmp_path / "heard", num_clips=40, audio_shape=(6, 5))
    overrides = ("--trainer.max_steps=2", "--teacher.use_audio=true", f"--student.encoder={tmp_path / 'heard/encoder'}")
    folder, _ = run(write_config(uri=data.root), *overrides)
    names = {".".join(name.split(".")[:2]) for name in final_weights(folder)}
    assert {"teacher.visual_branch", "teacher.face_branch", "teacher.audio_branch"} <= names
    with pytest.raises(UserError, match=r"has no audio features .*teacher.use_audio: false"):
        run(write_config("silent"), "--teacher.use_audio=true")


def test_teacher_is_scored_on_clips_with_its_features(write_config, tmp_path: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
    from vadv_dist.data.shards import DatasetWriter
    from vadv_dist.training.evaluate import evaluate_run

    random = np.random.default_rng(0)
    with DatasetWriter(
        tmp_path / "gaps", features={"visual": FeatureSpec((2, 1, 8))}, label=LabelSpec(), provenance={}
    ) as writer:
        for i in range(60):
            visual = None if i % 3 == 0 else random.normal(size=(2, 1, 8))
            split = ("train", "valid", "test")[i % 5 % 3]
            label = float(random.integers(-3, 4))
            writer.write(split, Clip(f"c{i}", f"v{i}", "some words", label, "test", {"visual": visual}))
    masking = write_config("masked", uri=tmp_path / "gaps")
    options = ("--data.missing=mask", "--teacher.use_face=false", "--trainer.max_steps=2")
    folder, _ = run(masking, *options)
    document = evaluate_run(folder.root, "test").to_json()
    table = pq.read_table(folder.root / "predictions-test.parquet").to_pydict()
    seen = [v is not None for v in table["video_logit"]]
    assert 0 < sum(seen) < len(seen)
    assert all(int(name[1:]) % 3 != 0 for name, s in zip(table["clip_id"], seen, strict=True) if s)
    errors = [abs(v - y) for v, y in zip(table["video_logit"], table["label"], strict=True) if v is not None]
    assert document["video"]["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert document["student"]["mae"] == pytest.approx(
        np.mean(np.abs(np.array(table["text_logit"]) - np.array(table["label"]))), rel=1e-5
    )


def test_the_next_epoch_is_read_ahead_and_two_windows_are_held(write_config, tmp_path: Path, monkeypatch) -> None:
    from vadv_dist.data.windows import LocalWindows

    data = tmp_path / "shards"
    make_dataset(data, num_clips=200, seed=2, shard_rows=16)
    supplies: list[LocalWindows] = []
    most = 0
    first, take = LocalWindows.__init__, LocalWindows.get

    def remember(self: LocalWindows, *arguments: object) -> None:
        first(self, *arguments)
        supplies.append(self)

    def count(self: LocalWindows, *arguments: object) -> object:
        nonlocal most
        window = take(self, *arguments)
        most = max(most, sum(len(supply._held) for supply in supplies))
        return window

    kept: list[tuple[tuple[int, ...], ...]] = []
    keep = LocalWindows.keep

    def note(self: LocalWindows, windows: Iterable[tuple[int, ...]]) -> None:
        before = set(self._held)
        keep(self, windows)
        assert set(self._held) <= before  # it was read during the last window of the epoch
        if self is supplies[0]:
            kept.append(tuple(self._held))

    monkeypatch.setattr(LocalWindows, "__init__", remember)
    monkeypatch.setattr(LocalWindows, "get", count)
    monkeypatch.setattr(LocalWindows, "keep", note)
    path = write_config(uri=data)
    run(path, "--data.window_bytes=65536", "--trainer.epochs=3")
    assert len(supplies) == 2
    assert most == 2
    config = load_config(path, ["--data.window_bytes=65536"])
    train_split = Splits.open(config).train
    first = [train_split.plan(config.data, seed=config.run.seed, epoch=epoch).window(0).shards for epoch in (1, 2)]
    assert kept == [*((shards,) for shards in first), ()]


def test_a_run_begun_before_there_were_lanes_resumes_in_its_order(write_config, tmp_path: Path, monkeypatch) -> None:
    data = tmp_path / "shards"
    make_dataset(data, num_clips=200, seed=2, shard_rows=8)
    options = ("--data.window_bytes=65536", "--data.batch_size=8", "--trainer.checkpoint_every_steps=2")
    with monkeypatch.context() as before:
        before.setattr(SplitShards, "num_lanes", lambda *arguments: 1)
        whole, result = run(write_config("whole", uri=data), *options)
        cut_off_at(4, monkeypatch, write_config("cut", uri=data), *options)
    resumed, its_result = run(write_config("cut", uri=data), *options)
    assert same(whole, resumed)
    assert its_result["steps"] == result["steps"] > 4
    with_lanes, _ = run(write_config("lanes", uri=data), *options)
    assert not same(whole, with_lanes)
    state = list_checkpoints(with_lanes.checkpoints)[-1].state()
    assert state["num_lanes"] > 1
    assert TrainState.from_json({k: v for k, v in state.items() if k != "num_lanes"}).num_lanes == 1


def test_run_can_be_evaluated_from_another_working_directory(write_config, made, tmp_path, monkeypatch) -> None:
    from vadv_dist.training.evaluate import evaluate_run

    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    there.mkdir()
    elsewhere.mkdir()
    (there / "data").symlink_to(made)
    monkeypatch.chdir(there)
    folder, _ = run(write_config(uri=Path("data")), "--student.encoder=data/encoder", "--trainer.max_steps=2")
    monkeypatch.chdir(elsewhere)
    assert evaluate_run(folder.root, "valid").to_json()["rows"] == 21


def test_smoke_test_validates_on_two_batches(write_config) -> None:
    from vadv_dist.launch.smoke import smoke

    said = list(smoke(load_config(write_config(), ["--trainer.eval_batch_size=4"])))
    assert said[1].startswith("validation: 8 clips")
    assert "bit-identical" in said[3]

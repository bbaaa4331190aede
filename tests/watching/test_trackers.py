import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from run_lines import line

from vadv_dist.config import load_config
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.watching import trackers
from vadv_dist.watching.trackers import flat, require_tracker, tracking, values_of

STEP = {
    "kind": "step",
    "step": 3,
    "epoch": 0,
    "total": 2.5,
    "text_regression": 0.25,
    "lr": 1e-3,
    "mfu": None,
    "time": 1,
}
EPOCH = {
    "kind": "epoch",
    "step": 4,
    "epoch": 0,
    "validation": {"student": {"mae": 0.75, "corr": None}},
    "sources": {"mosi": {"student": {"mae": 0.5}}},
    "time": 2,
}


def tracked(config: Path, tracker: str, caplog: pytest.LogCaptureFixture) -> list[dict]:
    """Train a run with a tracker and return the lines of its log."""
    options = [f"--telemetry.track={tracker}", "--trainer.epochs=1", "--data.batch_size=40"]
    train(load_config(config, options), Console(file=io.StringIO()))
    assert "failed and gets no more values" not in caplog.text
    return [each.to_json() for each in RunFolder.open(config.parent / "runs" / config.stem).metrics_log().lines()]


def expected(log: list[dict]) -> dict[tuple[str, int], float]:
    """Some values of a log as a tracker names them, by name and step."""
    found = {}
    for entry in log:
        if entry["kind"] == "step":
            found["loss/total", entry["step"]] = entry["total"]
            found["loss/video_to_text", entry["step"]] = entry["video_to_text"]
            found["rate/grad_norm", entry["step"]] = entry["grad_norm"]
        elif entry["kind"] == "epoch":
            found["validation/student/mae", entry["step"]] = entry["validation"]["student"]["mae"]
    assert len(found) > 4
    return found


def test_values_of_a_line_are_named_in_groups() -> None:
    assert values_of(line(STEP)) == {
        "loss/total": 2.5,
        "loss/text_regression": 0.25,
        "rate/lr": 1e-3,
        **dict.fromkeys(("rate/samples_per_s", "rate/tokens_per_s", "rate/data_wait_s", "rate/line_s"), 0.0),
    }
    weighed = values_of(line({**STEP, "weights": {"text_regression": 0.5}}))
    assert weighed == {**values_of(line(STEP)), "weight/text_regression": 0.5}
    assert values_of(line(EPOCH)) == {"validation/student/mae": 0.75, "validation/mosi/student/mae": 0.5}
    assert values_of(line({"kind": "checkpoint", "step": 4, "seconds": 1.0})) == {}
    assert flat({"run": {"name": "a"}, "data": {"batch": {"size": 4}}}) == {"run.name": "a", "data.batch.size": 4}


def test_source_names_stay_distinct_after_replacing_characters() -> None:
    names = ["validation/a+b/student/mae", "validation/a&b/student/mae", "validation/a_b/student/mae"]
    for unwanted in (trackers._MLFLOW, trackers._TENSORBOARD):
        assert len({trackers._plain_name(name, unwanted) for name in names}) == len(names)
        assert trackers._plain_name(names[2], unwanted) == names[2]


def test_missing_tracker_package_is_a_user_error(monkeypatch) -> None:
    monkeypatch.setattr("vadv_dist.watching.trackers.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow is not installed.*vadv-dist\[track\]"):
        require_tracker("mlflow")
    require_tracker("none")


def test_tracker_without_a_location_is_a_user_error() -> None:
    pytest.importorskip("tensorboardX")
    with pytest.raises(UserError, match="object store"), tracking("tensorboard", "run", "s3://b/run", None, {}):
        pass


def test_unreachable_tracker_is_a_user_error(monkeypatch, tmp_path) -> None:
    pytest.importorskip("tensorboardX")
    (tmp_path / "run").write_text("a file, where a folder is needed")
    with (
        pytest.raises(UserError, match="tensorboard, which cannot be reached"),
        tracking("tensorboard", "run", "run", tmp_path, {}),
    ):
        pass


def test_failing_tracker_does_not_end_training(monkeypatch, tmp_path, caplog) -> None:
    @contextmanager
    def broken(*arguments: object) -> Iterator[Callable]:
        def log(step: int, values: dict) -> None:
            raise ConnectionError("nobody there")

        yield log
        raise AssertionError("a tracker that failed is not closed")

    monkeypatch.setattr("vadv_dist.watching.trackers._tracker", broken)
    with tracking("mlflow", "run", "run", tmp_path, {}) as track:
        for _ in range(3):
            track(line(STEP))
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry.track: mlflow failed and gets no more values: nobody there"
    ]


def event_values(path: Path) -> dict[tuple[str, int], float]:
    """Scalars of a TensorBoard file: records of length, checksum, message and checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found, start = path.read_bytes(), {}, 0
    while start < len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        event = Event.FromString(data[start + 12 : start + 12 + length])
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
        start += 16 + length
    return found


@pytest.mark.slow
def test_tensorboard_files_contain_the_logged_values(write_config, tmp_path, caplog) -> None:
    pytest.importorskip("tensorboardX")
    log = tracked(write_config("shown"), "tensorboard", caplog)
    [path] = (tmp_path / "runs" / "shown" / "tensorboard").iterdir()
    found = event_values(path)
    for key, value in expected(log).items():
        assert found[key] == pytest.approx(value, rel=1e-6)  # float32 there


@pytest.mark.slow
def test_tensorboard_itself_reads_them(write_config, tmp_path, caplog) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = tracked(write_config("shown"), "tensorboard", caplog)
    events = accumulator.EventAccumulator(str(tmp_path / "runs" / "shown" / "tensorboard"))
    events.Reload()
    for (name, step), value in expected(log).items():
        [scalar] = [scalar for scalar in events.Scalars(name) if scalar.step == step]
        assert scalar.value == pytest.approx(value, rel=1e-6)


@pytest.mark.slow
def test_mlflow_contains_the_logged_values_and_resumes_its_run(write_config, tmp_path, caplog) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    config = write_config("shown")
    log = tracked(config, "mlflow", caplog)
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vadv")

    def only_run():
        [run] = client.search_runs([experiment.experiment_id])
        return run

    run = only_run()
    assert run.info.run_name == "shown"
    assert run.info.status == "FINISHED"
    assert run.data.params["data.batch_size"] == "40"
    for (name, step), value in expected(log).items():
        [metric] = [metric for metric in client.get_metric_history(run.info.run_id, name) if metric.step == step]
        assert metric.value == value
    # The same run again is found by its folder, and no second run is created.
    (tmp_path / "runs" / "shown" / "result.json").unlink()
    tracked(config, "mlflow", caplog)
    assert only_run().info.run_id == run.info.run_id
    assert json.loads((tmp_path / "runs" / "shown" / "result.json").read_text())["run"] == "shown"


def wandb_records(path: Path) -> list[bytes]:
    """Records of a W&B file: blocks of 32 KiB, each record or part of one with checksum, length and kind."""
    data, at, found, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(part)
            part = b""
    return found


@pytest.mark.slow
def test_wandb_offline_contains_the_logged_values(write_config, tmp_path, caplog, monkeypatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    log = tracked(write_config("shown"), "wandb", caplog)
    [path] = (tmp_path / "runs" / "shown" / "wandb").glob("offline-run-*/*.wandb")
    found = {}
    for data in wandb_records(path):
        record = wandb_internal_pb2.Record.FromString(data)
        values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        found |= {(name, values["step"]): value for name, value in values.items()}
    for key, value in expected(log).items():
        assert found[key] == value


@pytest.mark.slow
def test_wandb_without_a_key_is_a_user_error(write_config) -> None:
    pytest.importorskip("wandb")
    command = [
        sys.executable,
        "-m",
        "vadv_dist.cli",
        "train",
        "--config",
        str(write_config()),
        "--telemetry.track=wandb",
    ]
    environment = {**os.environ, "WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": "/nonexistent"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 2
    assert "telemetry.track is wandb, which cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr

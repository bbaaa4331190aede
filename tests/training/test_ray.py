"""Ray Train with two DeepSpeed workers: killed in every way, it ends with the weights of a run that was not."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vadv_dist.training.checkpoint import list_checkpoints
from vadv_dist.training.run_folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.deepspeed, pytest.mark.slow]
BIN = Path(sys.executable).parent


def lines(folder: RunFolder) -> list[dict]:
    if not folder.metrics_path.is_file():
        return []
    text = folder.metrics_path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def wait_for_step(folder: RunFolder, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180
    while not any(line["step"] >= step for line in lines(folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_runs_killed_under_ray_end_with_the_weights_of_one_that_was_not(cluster, write_config, tmp_path) -> None:
    options = ["--trainer.num_workers=2", "--engine.kind=deepspeed", "--engine.zero_stage=1", "--data.batch_size=4"]
    options += ["--trainer.checkpoint_every_steps=4", "--trainer.cpus_per_worker=1", "--trainer.epochs=4"]

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(write_config(name)), *options]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment
        )

    whole, killed = RunFolder(tmp_path / "runs" / "whole"), RunFolder(tmp_path / "runs" / "killed")
    undisturbed, driver = start("whole"), start("killed")
    # The driver is killed inside the first epoch.
    wait_for_step(killed, 7, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()

    _, said = undisturbed.communicate(timeout=240)
    assert undisturbed.returncode == 0, said
    assert "starting 2 Ray Train workers" in said
    assert "Traceback" not in said
    epochs = [line["step"] for line in lines(whole) if line["kind"] == "epoch"]
    result = json.loads(whole.result_path.read_text())
    assert result["workers"] == 2
    assert result["engine"] == "deepspeed zero-1"
    assert list_checkpoints(killed.checkpoints)[-1].step < epochs[0]
    assert not killed.result_path.exists()
    deadline = time.monotonic() + 60
    while cluster.processes("TrainWorker") and time.monotonic() < deadline:
        time.sleep(0.1)

    # The same command goes on; one of its workers is killed inside a later epoch, and Ray starts them again.
    driver = start("killed")
    wait_for_step(killed, epochs[1] + 6, driver)
    victims = cluster.processes("TrainWorker")
    assert len(victims) == 2
    victims[-1].send_signal(signal.SIGKILL)
    _, said = driver.communicate(timeout=240)
    assert driver.returncode == 0, said
    assert "going on from step" in said
    assert "a worker was lost" in said

    first = list_checkpoints(whole.checkpoints)[-1].weights()
    second = list_checkpoints(killed.checkpoints)[-1].weights()
    assert all(torch.equal(first[name], second[name]) for name in first)
    steps = [line["step"] for line in lines(killed) if line["kind"] == "step"]
    assert steps == list(range(1, result["steps"] + 1))


def test_a_mistake_met_by_a_worker_is_one_message(cluster, write_config, made, tmp_path) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(made, damaged)
    path = next((damaged / "train").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(write_config(uri=damaged))]
    command += ["--trainer.num_workers=2", "--trainer.cpus_per_worker=1"]
    done = subprocess.run(command, capture_output=True, text=True, env=cluster.environment, timeout=240)
    assert done.returncode == 2, done.stderr
    assert f"{path} has SHA-256" in done.stderr
    assert "Traceback" not in done.stderr

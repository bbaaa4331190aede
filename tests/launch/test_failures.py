"""Runs on several nodes that hang, lose nodes with notice, and are noticed themselves, end as if undisturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ray_nodes import Nodes, start_nodes
from s3_server import FaultyProxy

from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage.objects import S3Path

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with start_nodes(head_cpus=1, others=1) as nodes:
        yield nodes


def records(folder: RunFolder, *kinds: str) -> list[dict]:
    if not folder.metrics_path.is_file():
        return []
    text = folder.metrics_path.read_text()
    lines = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
    return [line for line in lines if line["kind"] in kinds]


def wait_until(process: subprocess.Popen, what: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not what():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return list_checkpoints(folder.checkpoints)[-1].weights()


def test_run_that_hangs_and_whose_nodes_leave_ends_as_if_undisturbed(nodes: Nodes, write_config, tmp_path) -> None:
    options = ["--data.batch_size=4", "--trainer.epochs=40", "--trainer.num_workers=2", "--trainer.cpus_per_worker=1"]
    # One failure is allowed, which the hang spends: nodes that leave spend none.
    options += ["--trainer.hang_timeout_s=8", "--trainer.max_failures=1"]
    environment = {**nodes.cluster.environment, "OMP_NUM_THREADS": "1"}

    def start(name: str) -> tuple[subprocess.Popen, RunFolder, Path]:
        command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(write_config(name)), *options]
        log = tmp_path / f"{name}.log"
        with log.open("a") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        return process, RunFolder(tmp_path / "runs" / name), log

    def steps_after(folder: RunFolder, starts: int) -> int:
        found = records(folder, "start", "step")
        begun = [number for number, line in enumerate(found) if line["kind"] == "start"]
        return len(found) - begun[starts - 1] - 1 if len(begun) >= starts else 0

    driver, told, log = start("told")
    wait_until(driver, lambda: steps_after(told, 1) > 30, log)
    stopped = nodes.processes("TrainWorker")[-1]
    stopped.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_until(driver, lambda: steps_after(told, 2) > 5, log)
    assert time.monotonic() - began < 120
    assert f"(process {stopped.pid} on " in log.read_text()
    [stacks] = (told.root / "failures").glob("*-hang.txt")
    assert f"process {stopped.pid}: state T" in stacks.read_text()
    # Where the other rank waits.
    assert any(name in stacks.read_text() for name in ("_run_backward", "all_reduce", "all_gather"))

    nodes.drain(head=False, deadline_s=60)
    wait_until(driver, lambda: "writing a checkpoint" in log.read_text(), log)
    nodes.add()
    wait_until(driver, lambda: steps_after(told, 3) > 5, log)

    driver.send_signal(signal.SIGUSR1)
    assert driver.wait(120) == 75, log.read_text()
    assert "stopped by SIGUSR1 at step" in log.read_text()

    driver, told, log = start("told")
    wait_until(driver, lambda: steps_after(told, 4) > 5, log)
    nodes.drain(head=True, deadline_s=60)
    assert driver.wait(120) == 75, log.read_text()
    assert "this node leaves the cluster" in log.read_text()
    causes = [(line["kind"], line.get("cause", "")) for line in records(told, "start", "stop")]
    assert causes == [
        ("start", ""),
        ("start", "hang"),
        ("stop", "preemption"),
        ("start", "preemption"),
        ("stop", "SIGUSR1"),
        ("start", ""),
        ("stop", "preemption"),
    ]
    # A draining node still takes drivers, but a run there would end at once: another cluster goes on.
    environment = {**environment, "RAY_ADDRESS": "local"}
    driver, told, log = start("told")
    assert driver.wait(600) == 0, log.read_text()
    driver, whole, log = start("whole")
    assert driver.wait(600) == 0, log.read_text()

    steps = [line["step"] for line in records(told, "step")]
    assert steps == [line["step"] for line in records(whole, "step")]
    first, second = weights(told), weights(whole)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not os.path.exists(told.root / ".ray")


def test_search_whose_drivers_node_leaves_is_resumed(write_config, tmp_path: Path) -> None:
    (tmp_path / "rates.yaml").write_text(
        "search: {num_trials: 2, seeds: 3, top: 1, leave_one_out: false, concurrent: 2, scheduler: none}\n"
        "space: {optimizer.lr: {distribution: float, low: 1.0e-4, high: 1.0e-2, log: true}}\n"
    )
    command = [sys.executable, "-m", "vadv_dist.cli", "tune", "--config", str(write_config("hunt"))]
    command += ["--space", str(tmp_path / "rates.yaml"), "--data.batch_size=4", "--trainer.epochs=60"]
    root = tmp_path / "runs" / "hunt-rates"

    def lines(*kinds: str) -> list[dict]:
        return [line for path in root.rglob("metrics.jsonl") for line in records(RunFolder(path.parent), *kinds)]

    log = tmp_path / "log"
    with start_nodes(head_cpus=3, others=0) as nodes:
        environment = {**nodes.cluster.environment, "OMP_NUM_THREADS": "1"}
        with log.open("a") as file:
            driver = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        wait_until(driver, lambda: len(lines("step")) > 30, log)
        nodes.drain(head=True, deadline_s=60)
        assert driver.wait(60) == 75, log.read_text()
    assert "This node leaves the Ray cluster" in log.read_text()
    assert "Traceback" not in log.read_text()
    stops = lines("stop")
    assert stops
    assert {line["cause"] for line in stops} == {"preemption"}
    # On another cluster, those that were stopped go on from there.
    environment = {**environment, "RAY_ADDRESS": "local"}
    with log.open("a") as file:
        driver = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    resumed = lambda: sorted(line["step"] for line in lines("start") if line["step"])  # noqa: E731
    wait_until(driver, lambda: len(resumed()) == len(stops), log)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 143, log.read_text()
    assert resumed() == sorted(line["step"] for line in stops)


@pytest.fixture
def nodes_without_head() -> Iterator[Nodes]:
    """Two nodes for two workers each; the head takes none."""
    with start_nodes(head_cpus=0, others=2) as nodes:
        yield nodes


@pytest.mark.timeout(3600)  # minutes where nothing else runs
def test_four_then_two_then_four_workers_learn_what_one_process_does(
    nodes_without_head: Nodes, write_config, tmp_path: Path
) -> None:
    nodes = nodes_without_head
    options = ["--data.batch_size=8", "--trainer.epochs=120", "--trainer.cpus_per_worker=1", "--trainer.accumulate=2"]
    # Each rank draws its own dropout; without it, only rounding depends on the number of ranks.
    # At a higher learning rate, training amplifies that.
    options += ["--student.dropout=0", "--student.encoder_dropout=0", "--optimizer.lr=1e-5"]
    environment = {**nodes.cluster.environment, "OMP_NUM_THREADS": "1"}

    def start(name: str, *more: str) -> tuple[subprocess.Popen, RunFolder, Path]:
        path = str(write_config(name))
        command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", path, *options, *more]
        log = tmp_path / f"{name}.log"
        with log.open("a") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        return process, RunFolder(tmp_path / "runs" / name), log

    def workers(folder: RunFolder) -> list[int]:
        return [line["workers"] for line in records(folder, "start")]

    driver, elastic, log = start("elastic", "--trainer.num_workers=[2, 4]")
    wait_until(driver, lambda: workers(elastic) == [4] and len(records(elastic, "step")) > 15, log)
    leaving = nodes.drain(head=False, deadline_s=120)
    wait_until(driver, lambda: workers(elastic) == [4, 2], log)  # before the node is gone
    nodes.remove(leaving)
    nodes.add()
    wait_until(driver, lambda: workers(elastic) == [4, 2, 4], log)
    assert driver.wait(1500) == 0, log.read_text()
    causes = [(line["kind"], line.get("cause", "")) for line in records(elastic, "start", "stop")]
    assert causes == [
        ("start", ""),
        ("stop", "preemption"),
        ("start", "preemption"),
        ("stop", "resize"),
        ("start", "resize"),
    ]

    driver, whole, log = start("whole", "--trainer.num_workers=0", "--trainer.accumulate=1")
    assert driver.wait(1500) == 0, log.read_text()
    found, expected = records(elastic, "step"), records(whole, "step")
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    first, second = weights(elastic), weights(whole)
    assert first.keys() == second.keys()
    largest = max(float((first[name].float() - second[name].float()).abs().max()) for name in first)
    print(f"largest difference of a weight: {largest:.1e}")
    assert largest < 2e-5  # each weight moves by up to a hundred times as much


def test_store_that_stands_still_neither_ends_nor_hangs_a_run(cluster, s3, s3_port, write_config, tmp_path) -> None:
    """The store answers nobody for half a minute: not the ranks, their reader, the driver, or their leases."""
    folder = RunFolder(S3Path.parse(f"{s3}/runs/slow"))
    path = str(write_config("slow", storage=f"{s3}/runs"))
    command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", path, "--data.batch_size=4"]
    command += ["--trainer.epochs=60", "--trainer.num_workers=2", "--trainer.cpus_per_worker=1"]
    command += ["--trainer.hang_timeout_s=8", "--trainer.max_failures=0"]
    # Only the first epoch, the best ones, and the end have checkpoints.
    command += ["--trainer.checkpoint_every_epochs=null"]
    log = tmp_path / "log"
    with FaultyProxy(s3_port, share=0.0) as proxy:
        environment = {**cluster.environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_address[1]}"}
        with log.open("a") as file:
            driver = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        wait_until(driver, lambda: len(records(folder, "step")) > 300, log)
        began, proxy.hold = time.time(), "/"
        time.sleep(30)
        ended, proxy.hold = time.time(), None
        assert driver.wait(300) == 0, log.read_text()
    assert proxy.held.is_set()
    assert "has not answered" not in log.read_text()
    assert len(records(folder, "start")) == 1
    steps = records(folder, "step")
    assert [line["step"] for line in steps] == list(range(1, 60 * 21 + 1))
    meanwhile = [line for line in steps if began + 5 < line["time"] < ended]
    assert len(meanwhile) > 50  # training went on

"""Jobs over HTTP on two nodes of this machine, one of which is killed inside an epoch."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_nodes import free_port, kill_node, start_node
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class TwoNodes:
    """A head that accepts jobs with a token, and a second node that can be killed and restarted."""

    def __init__(self, scratch: Path) -> None:
        token = scratch / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        self.token, self.scratch = token, scratch
        self.environment = {
            **os.environ,
            "RAY_TMPDIR": str(scratch),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TRAIN_V2_ENABLED": "1",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.port, self.dashboard = free_port(), free_port()
        head = ["--head", f"--port={self.port}", f"--dashboard-port={self.dashboard}"]
        head += [f"--ray-client-server-port={free_port()}", "--num-cpus=3", "--object-store-memory=200000000"]
        self.head = start_node(self.environment, *head)
        self.second = self.start_second()

    def start_second(self) -> subprocess.Popen:
        # A starting node empties the folder of runtime environments, so it must not share the head's.
        options = [f"--address=127.0.0.1:{self.port}", "--num-cpus=2", f"--temp-dir={self.scratch}/2"]
        return start_node(self.environment, *options, "--object-store-memory=200000000")

    def close(self) -> None:
        for process in (self.second, self.head):
            kill_node(process)


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    scratch = Path(tempfile.mkdtemp(prefix="vr", dir="/tmp"))  # Ray's sockets need a short path
    nodes = TwoNodes(scratch)
    yield nodes
    nodes.close()
    shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture
def project(tmp_path: Path, made: Path, write_config: Callable[..., Path]) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(write_config("job", storage=tmp_path / "runs"), folder / "run.yaml")
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "run.yaml"], check=True)
    return folder


def submit(nodes: TwoNodes, project: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "vadv_dist.cli", "submit", "train", "--config", "run.yaml", *arguments]
    command += ["--address", f"http://127.0.0.1:{nodes.dashboard}"]
    return subprocess.Popen(
        command, cwd=project, env=nodes.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def losses(run: RunFolder) -> dict[int, float]:
    """Total loss of each step."""
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    return {line["step"]: line["total"] for line in lines if line["kind"] == "step"}


def test_a_run_survives_the_loss_of_a_workers_node(nodes, project, write_config, tmp_path) -> None:
    options = ["--student.encoder_dropout=0.0", "--student.dropout=0.0", "--teacher.dropout=0.0"]
    options += ["--trainer.epochs=4", "--trainer.checkpoint_every_steps=2", "--data.batch_size=8"]
    # Two CPUs each: the head has room for one worker, the second node for the other.
    spread = ["--trainer.num_workers=2", "--trainer.cpus_per_worker=2"]
    run = RunFolder(tmp_path / "runs" / "job")
    first = submit(nodes, project, *options, *spread)
    deadline = time.monotonic() + 240
    while not list_checkpoints(run.checkpoints):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kill_node(nodes.second)
    assert run.result() is None

    # The same command follows the running job instead of starting a second one.
    twin = submit(nodes, project, *options, *spread)
    nodes.second = nodes.start_second()
    said, told = first.communicate(timeout=300)
    assert first.returncode == 0, said + told
    assert "submitted vadv-train-job-" in told
    assert "packed 1 file tracked" in told
    assert "joined the Ray cluster of this job at" in said
    twin_said, twin_told = twin.communicate(timeout=60)
    assert twin.returncode == 0, twin_said + twin_told
    assert re.search("vadv-train-job-[0-9a-f]{12} already runs", twin_told)
    assert "best validation MAE" in twin_said

    result = run.result()
    assert result is not None
    assert result.workers == 2
    alone = load_config(write_config("alone", storage=tmp_path / "runs"), options)
    train(alone, Console(quiet=True))
    expected, totals = losses(RunFolder.of(alone)), losses(run)
    assert list(totals) == list(range(1, result.steps + 1))
    assert totals == pytest.approx(expected, rel=1e-4)

    # The run's files contain no token.
    secret = nodes.token.read_text()
    for path in run.root.rglob("*"):
        if path.is_file() and path.suffix in {".yaml", ".json", ".jsonl", ".html", ".md", ".txt"}:
            assert secret not in path.read_text()


def test_a_job_that_writes_into_its_working_directory_is_refused(nodes: TwoNodes, project: Path) -> None:
    """`ray job submit` sends a config unchanged, whereas `vadv submit` makes its paths absolute."""
    command = [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{nodes.dashboard}"]
    command += ["--working-dir", str(project), "--", sys.executable, "-m", "vadv_dist.cli", "train"]
    command += ["--config", "run.yaml", "--trainer.num_workers=2", "--run.storage=runs"]
    done = subprocess.run(command, env=nodes.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "exit code 2" in said
    assert "run.storage is runs, relative to a Ray job's working directory, a copy that Ray deletes" in said


def test_a_user_error_on_the_cluster_is_returned_as_one(nodes, project, made) -> None:
    done = submit(
        nodes, project, "--trainer.num_workers=2", "--run.name=wrong", "--student.encoder=nowhere/to-be-found"
    )
    said, told = done.communicate(timeout=120)
    assert done.returncode == 2, said + told
    assert "nowhere/to-be-found" in said + told


def jobs(nodes: TwoNodes, *arguments: str) -> subprocess.CompletedProcess[str]:
    address = f"http://127.0.0.1:{nodes.dashboard}"
    command = [sys.executable, "-m", "vadv_dist.cli", "jobs", *arguments, "--address", address]
    return subprocess.run(command, env=nodes.environment, capture_output=True, text=True, timeout=180)


def test_jobs_are_listed_read_and_stopped(nodes: TwoNodes, project: Path) -> None:
    options = [
        "--trainer.num_workers=1",
        "--run.name=long",
        "--trainer.epochs=10000",
        "--detach",
        "--files",
        "run.yaml",
    ]
    _, told = submit(nodes, project, *options).communicate(timeout=120)
    assert "packed 1 file of --files" in told
    (job,) = re.findall(r"submitted (\S+) to", told)
    listed = {each["id"]: each for each in json.loads(jobs(nodes, "list", "--json").stdout)}
    assert listed[job]["status"] in ("PENDING", "RUNNING")
    assert "train" in listed[job]["command"]
    shown = jobs(nodes, "list").stdout
    assert f"{job}  " in shown
    assert "  vadv train --config run.yaml --trainer.num_workers=1 --run.name=long" in shown
    refused = jobs(nodes, "logs", job[:-2] + "zz")
    assert refused.returncode == 2
    assert f"Did you mean '{job}'?" in refused.stderr
    stopped = jobs(nodes, "stop", job[:-3])
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.startswith(f"{job} has ended: STOPPED")
    assert f"{job} has ended before" in jobs(nodes, "stop", job).stdout
    shown = jobs(nodes, "logs", job)
    assert shown.returncode == 0
    command = [
        sys.executable,
        "-m",
        "vadv_dist.cli",
        "watch",
        job[:-3],
        "--address",
        f"http://127.0.0.1:{nodes.dashboard}",
    ]
    watched = subprocess.run(command, env=nodes.environment, capture_output=True, text=True, timeout=180)
    assert watched.stdout == shown.stdout


def test_a_wrong_token_is_a_user_error(nodes: TwoNodes, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other-token"
    other.touch(0o600)
    other.write_text(secrets.token_hex(32))
    nodes.environment["RAY_AUTH_TOKEN_PATH"] = str(other)
    try:
        done = submit(nodes, project, "--trainer.num_workers=2", "--run.name=refused")
        said, told = done.communicate(timeout=60)
    finally:
        nodes.environment["RAY_AUTH_TOKEN_PATH"] = str(nodes.token)
    assert done.returncode == 2, said + told
    assert "Traceback" not in told
    assert "refuses this token" in told


def test_a_driver_without_the_token_gets_advice(nodes: TwoNodes, project: Path) -> None:
    """`vadv train` with `RAY_ADDRESS`, as on the head itself."""
    environment = {**nodes.environment, "RAY_ADDRESS": f"127.0.0.1:{nodes.port}", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-m", "vadv_dist.cli", "train", "--config", "run.yaml", "--trainer.num_workers=2"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "requires a token that is missing" in done.stderr
    assert "Traceback" not in done.stderr

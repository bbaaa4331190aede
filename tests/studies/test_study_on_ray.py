"""A study on Ray: its runs share the machinery of a search, whatever the number of their workers."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.storage import read_json

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.long
def test_study_stopped_on_ray_ends_with_every_run_packed_or_with_workers(
    cluster, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    workers = "workers: {overrides: {objective.kind: none, trainer.num_workers: 2, trainer.epochs: 1}}"
    path = write_study(tmp_path, ("both steps: {}", f"both steps: {{}}\n  {workers}"), ("[1, 2]", "[1]"))
    command = [sys.executable, "-m", "vadv_dist.cli", "study", str(path), "--json"]
    runs = tmp_path / "out" / "parts" / "runs"
    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment
    )
    deadline = time.monotonic() + 600
    while not any(list_checkpoints(folder / "checkpoints") for folder in runs.glob("*-seed-1")):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 143, said
    assert said.endswith("stopped by SIGTERM. Completed work is saved; run the same command again to resume.\n")
    assert "Traceback" not in said
    assert not list(runs.rglob(".*.partial-*"))

    done = subprocess.run(command, capture_output=True, text=True, env=cluster.environment, timeout=500)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    states = {variant["name"]: variant["runs"][0]["state"] for variant in document["variants"]}
    assert states == {
        **dict.fromkeys(("alone", "both steps", "workers"), "complete"),
        "far & too_fast": "failed",
        "zero": "outside",
    }
    assert read_json(runs / "workers-seed-1" / "result.json")["workers"] == 2
    assert "Traceback" not in done.stderr

"""A run's folder that the workers do not share is told before the training, not after it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ray_nodes import Cluster

from vadv_dist.training.shared_folder import leave_mark, sees_mark


def test_a_mark_is_seen_in_its_folder_only(tmp_path: Path) -> None:
    name = leave_mark(tmp_path / "run" / ".ray")
    assert sees_mark(tmp_path / "run" / ".ray", name, wait_s=0)
    assert not sees_mark(tmp_path / "other" / ".ray", name, wait_s=0)
    assert leave_mark(tmp_path / "run" / ".ray") != name


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a path that each process sees its own way")
def test_workers_that_do_not_see_the_run_end_it_before_they_train(
    cluster: Cluster, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "storage").mkdir()
    folder = os.open(tmp_path / "storage", os.O_RDONLY)
    # The path names an open folder of the driver's process; a worker has no such file open.
    inherited = os.dup2(folder, 250, inheritable=True)
    config = write_config("apart", storage=f"/proc/self/fd/{inherited}/runs")
    command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(config), "--trainer.num_workers=2"]
    command += ["--trainer.cpus_per_worker=1"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=cluster.environment, pass_fds=[inherited], timeout=300
        )
    finally:
        os.close(inherited)
        os.close(folder)
    assert done.returncode == 2, done.stderr
    assert "is not shared by all workers" in done.stderr
    assert "rank 0 on" in done.stderr
    assert "rank 1 on" in done.stderr
    assert "Give a run.storage that every node sees" in done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "storage" / "runs" / "apart"
    assert not (run / "metrics.jsonl").exists()
    assert not (run / "checkpoints").exists()

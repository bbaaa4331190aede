"""A run's folder that the workers do not share is reported before training."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_nodes import Cluster

from vadv_dist.config import load_config
from vadv_dist.errors import UserError
from vadv_dist.launch.shared_folder import leave_mark, sees_mark


def test_mark_is_visible_only_in_its_folder(tmp_path: Path) -> None:
    name = leave_mark(tmp_path / "run" / ".ray")
    assert sees_mark(tmp_path / "run" / ".ray", name, wait_s=0)
    assert not sees_mark(tmp_path / "other" / ".ray", name, wait_s=0)
    assert leave_mark(tmp_path / "run" / ".ray") != name


@pytest.fixture
def own_path(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A path that names an open folder of one process only, and the descriptor that a child process must inherit."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs a path that each process sees its own way")
    (tmp_path / "storage").mkdir()
    opened = os.open(tmp_path / "storage", os.O_RDONLY)
    inherited = os.dup2(opened, 250, inheritable=True)
    os.close(opened)
    yield f"/proc/self/fd/{inherited}/runs", inherited
    os.close(inherited)


@pytest.mark.slow
@pytest.mark.ray
def test_search_is_rejected_if_a_node_does_not_share_its_folder(
    cluster: Cluster, write_config: Callable[..., Path], tmp_path: Path, own_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from vadv_dist.config.search import SearchConfig
    from vadv_dist.tuning.tune_pool import TunePool

    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, cluster.environment[name])
    one = ["--trainer.num_workers=1", "--trainer.cpus_per_worker=1"]
    try:
        for options in ([], one):
            config = load_config(write_config("apart", storage=own_path[0]), options)
            with pytest.raises(UserError, match="is not shared by all nodes"), TunePool(config, SearchConfig()):
                pass
            with TunePool(load_config(write_config("together"), options), SearchConfig()) as opened:
                assert opened.slots >= 1
            assert list((tmp_path / "runs").iterdir()) == []
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_workers_that_do_not_share_the_folder_do_not_train(
    cluster: Cluster, write_config: Callable[..., Path], tmp_path: Path, own_path
) -> None:
    storage, descriptor = own_path
    config = write_config("apart", storage=storage)
    command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(config), "--trainer.num_workers=2"]
    command += ["--trainer.cpus_per_worker=1"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=cluster.environment, pass_fds=[descriptor], timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert "is not shared by all workers" in done.stderr
    assert "rank 0 on" in done.stderr
    assert "rank 1 on" in done.stderr
    assert "Set run.storage to a place that all nodes share" in done.stderr
    assert "Traceback" not in done.stderr
    run = tmp_path / "storage" / "runs" / "apart"
    assert not (run / "metrics.jsonl").exists()
    assert not (run / "checkpoints").exists()

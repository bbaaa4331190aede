"""A run's folder that the workers do not share is reported before training."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vadv_dist.cli import main
from vadv_dist.config import load_config
from vadv_dist.errors import UserError
from vadv_dist.launch.shared_folder import leave_mark, sees_mark


def test_mark_is_visible_only_in_its_folder(tmp_path: Path) -> None:
    name = leave_mark(tmp_path / "run" / ".ray")
    assert sees_mark(tmp_path / "run" / ".ray", name, wait_s=0)
    assert not sees_mark(tmp_path / "other" / ".ray", name, wait_s=0)
    assert leave_mark(tmp_path / "run" / ".ray") != name


@pytest.fixture
def own_path(tmp_path: Path) -> Iterator[str]:
    """A path that names an open folder of this process only."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs a path that each process sees its own way")
    (tmp_path / "storage").mkdir()
    opened = os.open(tmp_path / "storage", os.O_RDONLY)
    mine = os.dup2(opened, 250, inheritable=False)
    os.close(opened)
    yield f"/proc/self/fd/{mine}/runs"
    os.close(mine)


@pytest.mark.slow
@pytest.mark.ray
def test_search_is_rejected_if_a_node_does_not_share_its_folder(
    joined: None, write_config: Callable[..., Path], tmp_path: Path, own_path
) -> None:
    from vadv_dist.config.search import SearchConfig
    from vadv_dist.tuning.tune_pool import TunePool

    one = ["--trainer.num_workers=1", "--trainer.cpus_per_worker=1"]
    for options in ([], one):
        config = load_config(write_config("apart", storage=own_path), options)
        with pytest.raises(UserError, match="is not shared by all nodes"), TunePool(config, SearchConfig()):
            pass
        with TunePool(load_config(write_config("together"), options), SearchConfig()) as opened:
            assert opened.slots >= 1
        assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.ray
def test_workers_that_do_not_share_the_folder_do_not_train(
    joined: None, write_config: Callable[..., Path], tmp_path: Path, own_path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config("apart", storage=own_path)
    command = ["train", "--config", str(config), "--trainer.num_workers=2", "--trainer.cpus_per_worker=1"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "is not shared by all workers" in said
    assert "rank 0 on" in said
    assert "rank 1 on" in said
    assert "Set run.storage to a place that all nodes share" in said
    assert "Traceback" not in said
    run = tmp_path / "storage" / "runs" / "apart"
    assert not (run / "metrics.jsonl").exists()
    assert not (run / "checkpoints").exists()

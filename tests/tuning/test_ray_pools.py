"""Searches on Ray: after any kill they run every requested trial, and stopped trials free their resources."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from ray_nodes import kill_node, start_node

from vadv_dist.config import load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.runs.checkpoint import last_checkpoint, list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runtime.signals import TerminatedError
from vadv_dist.storage import read_json
from vadv_dist.tuning.events import Epoch, Event, Lost, Stopped
from vadv_dist.tuning.tune_pool import TunePool

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SMALL_NODE = ("--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0")
SPACE = """
search: {num_trials: 5, reduction: 2, top: 1, leave_one_out: false, concurrent: 2}
space:
  objective.psi: {distribution: float, low: 0.01, high: 100.0, log: true, zero: 0.1}
"""


def wait_for(what: Callable[[], object], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_packed_search_survives_the_loss_of_its_driver_and_of_a_trial(cluster, write_config, tmp_path: Path) -> None:
    (tmp_path / "psi.yaml").write_text(SPACE)
    files = ["--config", str(write_config("hunt")), "--space", str(tmp_path / "psi.yaml")]
    options = ["--data.batch_size=4", "--trainer.epochs=4", "--telemetry.track=tensorboard"]
    command = [sys.executable, "-m", "vadv_dist.cli", "tune", *files, *options]
    root = tmp_path / "runs" / "hunt-psi"

    def checkpoints(number: int) -> list:
        return list_checkpoints(root / "trials" / str(number) / "checkpoints")

    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment
    )
    wait_for(lambda: checkpoints(0) or checkpoints(1), driver)
    first = {actor.pid for actor in cluster.processes("TrialActor")}
    driver.send_signal(signal.SIGKILL)
    driver.communicate()

    driver = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment
    )
    # The first driver's actors may still run for a moment.
    own = lambda: [actor for actor in cluster.processes("TrialActor") if actor.pid not in first]  # noqa: E731
    wait_for(lambda: (root / "trials" / "2").is_dir() and own(), driver)
    own()[0].send_signal(signal.SIGKILL)
    _, printed = driver.communicate(timeout=900)
    assert driver.returncode == 0, printed

    storage = f"sqlite:///{root}/study.db"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    assert len(trials) == 5
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert read_json(root / "tune.json")["trials"]["all"] == 5
    assert list(root.glob("tensorboard/trials/4/events.*"))
    for trial in trials:
        lines = [
            json.loads(x) for x in (root / "trials" / str(trial.number) / "metrics.jsonl").read_text().splitlines()
        ]
        epochs = [line["validation"]["student"]["mae"] for line in lines if line["kind"] == "epoch"]
        # Every epoch was trained once, and the study has the costs that the run wrote.
        assert trial.intermediate_values == dict(enumerate(epochs, 1))


def following(pool: TunePool, key: str, kind: type) -> Event:
    """The next event of a kind; all epochs before it continue."""
    while True:
        if (found := pool.next()) is None:
            continue
        if found[0] == key and isinstance(found[1], kind):
            return found[1]
        assert isinstance(found[1], Epoch), found
        pool.decide(found[0], True)


def test_stopped_trial_with_workers_frees_its_placement_group(joined, write_config) -> None:
    from ray.util import placement_group_table

    def groups() -> int:
        return sum(group["state"] != "REMOVED" for group in placement_group_table().values())

    def wait_for_groups(number: int) -> None:
        deadline = time.monotonic() + 60
        while groups() != number and time.monotonic() < deadline:
            time.sleep(0.2)
        assert groups() == number

    options = ["--trainer.num_workers=1", "--trainer.cpus_per_worker=1", "--trainer.epochs=400"]
    options += ["--trainer.checkpoint_every_epochs=1000"]
    config, other = (load_config(write_config(name), options) for name in ("run", "other"))
    before, grids = 0, []

    def search() -> None:
        nonlocal before
        with TunePool(config, SearchConfig(), on_results=grids.append) as pool:
            before = groups()
            pool.start("trial 0", config)
            following(pool, "trial 0", Epoch)
            assert groups() == before + 2  # of the trial and of its workers
            pool.decide("trial 0", False)
            following(pool, "trial 0", Stopped)
            wait_for_groups(before + 1)  # of the process that takes the next trial
            pool.start("trial 1", other)
            following(pool, "trial 1", Epoch)
            raise TerminatedError

    with pytest.raises(TerminatedError):
        search()
    # On SIGTERM, a trial with workers writes a checkpoint; otherwise it would have none.
    assert last_checkpoint(RunFolder.of(other).checkpoints) is not None
    wait_for_groups(before)
    (grid,) = grids
    assert [result.config["trial"] for result in grid] == ["trial 0", "trial 1"]
    assert grid[0].config["trainer"]["num_workers"] == 1


@pytest.mark.long
def test_what_a_trial_and_its_workers_wait_for_is_said(joined, write_config) -> None:
    from ray.util import placement_group, remove_placement_group

    options = ["--trainer.num_workers=1", "--trainer.cpus_per_worker=1", "--trainer.epochs=400"]
    config = load_config(write_config("patient"), options)
    held = {}
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        for unit, group in held.items():
            if f"room for 0 of 1 {unit} with 1 CPU" in line:
                remove_placement_group(group)

    def search() -> None:
        with TunePool(config, SearchConfig(), say=say) as pool:
            # Others use the cluster's 5 CPUs: the trial waits, and when one is free, its worker.
            held.update(trial=placement_group([{"CPU": 1}]), worker=placement_group([{"CPU": 4}]))
            for group in held.values():
                assert group.wait(30)
            pool.start("trial 0", config)
            following(pool, "trial 0", Epoch)
            raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            search()
    finally:
        for group in held.values():
            remove_placement_group(group)
    first, second = lines
    assert first.startswith("waiting for the Ray cluster (1"), lines
    assert second.startswith("trial 0: waiting for the Ray cluster (1"), lines


def test_node_that_joins_takes_a_trial_within_a_minute_and_may_be_lost(joined, cluster, write_config) -> None:
    address = cluster.environment["RAY_ADDRESS"]
    configs = [load_config(write_config(name), ["--trainer.epochs=4000"]) for name in ("here", "there")]

    def search() -> None:
        # The head has 5 CPUs, so one trial trains there, and one waits.
        with TunePool(configs[0], SearchConfig(cpus_per_trial=4)) as pool:
            pool.start("here", configs[0])
            following(pool, "here", Epoch)
            pool.decide("here", True)
            while pool.slots < 2:
                if pool.next() is not None:
                    pool.decide("here", True)
            pool.start("there", configs[1])
            node = start_node(cluster.environment, f"--address={address}", "--num-cpus=4", *SMALL_NODE)
            try:
                joined_at = time.monotonic()
                following(pool, "there", Epoch)
                assert time.monotonic() - joined_at < 60
                pool.decide("there", True)
            finally:
                kill_node(node)
            following(pool, "there", Lost)
            assert cluster.processes("TrialActor")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search()
    deadline = time.monotonic() + 20
    while cluster.processes("TrialActor"):
        assert time.monotonic() < deadline
        time.sleep(0.2)

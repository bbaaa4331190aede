"""The loop that runs a search's trainings."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from vadv_dist.config import Config, load_config
from vadv_dist.config.search import SearchConfig
from vadv_dist.data.sources import Sources
from vadv_dist.errors import NoticedError, StorageError, UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import SourceIdentity, TrainedOn
from vadv_dist.tuning.events import Blocked, Ended, Epoch, Event, Failed, Lost
from vadv_dist.tuning.jobs import RunJob, TrialJob, drive
from vadv_dist.tuning.pools import LocalPool
from vadv_dist.tuning.space_file import load_space
from vadv_dist.tuning.study import Study


class PretendingPool(LocalPool):
    """A pool whose trainings only record the data that they read, and end their first epoch."""

    def __init__(self, trained_on: TrainedOn) -> None:
        super().__init__(1.0)
        self._trained_on = trained_on

    def start(self, key: str, config: Config) -> None:
        self._key = key
        RunFolder.of(config).claim(config, self._trained_on)

    def next(self) -> tuple[str, Event]:
        return self._key, Epoch(0, 1.0)


def test_search_ends_before_a_training_on_other_data_is_counted(write_config: Any) -> None:
    config = load_config(write_config())
    started_on = TrainedOn.of(config, Sources.open(config))
    replaced = TrainedOn((SourceIdentity(started_on.data[0].place, "f" * 64, {}),), started_on.encoder)
    events: list[Event] = []

    class Job(RunJob):
        def on_epoch(self, event: Epoch) -> bool:
            events.append(event)
            raise KeyboardInterrupt  # nothing more to see

    def run(trained_on: TrainedOn, name: str) -> None:
        job = Job("trial 1", [(0, load_config(write_config(name)))], lambda key, event: None)
        drive(PretendingPool(trained_on), iter([job]), started_on)

    with pytest.raises(KeyboardInterrupt):
        run(started_on, "same")
    assert events == [Epoch(0, 1.0)]
    fingerprint = started_on.data[0].fingerprint[:12]
    with pytest.raises(UserError, match=rf"started on .*{fingerprint}.*trial 1 was trained on .*ffffffffffff"):
        run(replaced, "other")
    assert len(events) == 1


class InterruptedPool(LocalPool):
    """A pool that raises or returns what it is given, in place of training."""

    def __init__(self, *given: BaseException | Event) -> None:
        super().__init__(1.0)
        self._given = iter(given)

    def next(self) -> tuple[str, Event]:
        given = next(self._given)
        if isinstance(given, BaseException):
            raise given
        return self._key, given


def test_interrupted_starts_of_a_trial_are_no_losses(write_config: Any, tmp_path: Path) -> None:
    config = load_config(write_config(), ["--trainer.max_failures=2"])
    (tmp_path / "space.yaml").write_text(
        "space: {optimizer.lr: {distribution: float, low: 1.0e-4, high: 1.0e-2, log: true}}"
    )
    space, _ = load_space(tmp_path / "space.yaml", config)
    settings = SearchConfig(num_trials=1, scheduler="none")
    ended: list[Event] = []
    said: list[str] = []

    def search(*given: BaseException | Event) -> None:
        """Start or resume it as a new process does."""
        study = Study.open(f"{tmp_path}/study.log", "s", space, config, settings)
        [asked] = study.unfinished() or [study.ask()]
        assert asked is not None
        jobs = iter([TrialJob(study, asked, config, lambda _, event: ended.append(event))])
        drive(InterruptedPool(*given), jobs, say=said.append)

    interruptions = (
        (KeyboardInterrupt(), KeyboardInterrupt),
        (NoticedError("the node leaves"), NoticedError),
        (Blocked("the disk is full"), StorageError),
    )
    for given, expected in 2 * interruptions:
        with pytest.raises(expected):
            search(given)
    with pytest.raises(KeyboardInterrupt):
        search(Lost("killed"), *4 * [Lost("no room", counts=False)], Lost("killed"), KeyboardInterrupt())
    assert ended == []
    assert said == 4 * ["trial 0 starts again: no room"]
    search(Lost("killed"))
    assert ended == [Failed("lost", "lost 3 times without reaching the next checkpoint. killed")]


def test_training_without_room_for_its_checkpoint_has_not_failed(write_config: Any, small_disk: Path) -> None:
    config = load_config(write_config(storage=small_disk, name="run"), ["--trainer.epochs=1", "--teacher.width=256"])
    ended: list[Event] = []

    def run() -> None:
        job = RunJob("seed 1", [(0, config)], lambda key, event: ended.append(event))
        with LocalPool(30.0) as pool:
            drive(pool, iter([job]), TrainedOn.of(config, Sources.open(config)))

    with pytest.raises(StorageError, match=r"^seed 1: No space left on the disk that holds .*checkpoints"):
        run()
    assert ended == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    run()
    assert [type(event) for event in ended] == [Ended]


@pytest.mark.slow
def test_repeat_is_trained_once_and_keeps_its_student(write_config: Any, tmp_path: Path) -> None:
    config = load_config(write_config(), ["--trainer.epochs=1"])
    ended: list[Event] = []
    for _ in range(2):
        job = RunJob("default", [(0, config)], lambda key, event: ended.append(event))
        with LocalPool(30.0) as pool:
            drive(pool, iter([job]), TrainedOn.of(config, Sources.open(config)))
    assert [type(event) for event in ended] == [Ended, Ended]
    assert ended[0] == ended[1]
    folder = RunFolder.of(config)
    assert folder.student.is_dir()
    assert not folder.checkpoints.is_dir()

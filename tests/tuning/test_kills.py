"""A search killed at any step ends like one that was not: every step of a search, without training."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from run_lines import line, run_result

from vadv_dist.config import Config, config_to_dict
from vadv_dist.config.search import SearchConfig
from vadv_dist.runs.checkpoint import list_checkpoints, manifest
from vadv_dist.runs.encoder_identity import EncoderIdentity
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.storage import write_json
from vadv_dist.tuning import study as study_module
from vadv_dist.tuning.events import Ended, Epoch, Event, Stopped
from vadv_dist.tuning.jobs import TrialJob, drive
from vadv_dist.tuning.space import Space
from vadv_dist.tuning.space_file import load_space
from vadv_dist.tuning.study import Asked, Study

SPACE = """
space:
  objective.alpha: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.1}
  student.pooling: {distribution: categorical, choices: [cls, mean]}
  objective.psi: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.1}
first: [{objective.psi: 5.0}]
"""
EPOCHS, TRIALS = 5, 7
WRITES = [name for name in dir(optuna.storages.InMemoryStorage) if name.startswith(("create_new_", "set_"))]


class Killed(BaseException):  # not an Exception, so that nothing catches it
    """The process ends here."""


class Process:
    """Counts the steps of a process and kills it before a given one; only what it wrote remains."""

    def __init__(self, steps: float = math.inf) -> None:
        self._left = steps
        self.taken = 0

    def step(self, do: Callable[[], Any]) -> Any:
        """Do something that happens at once or not at all."""
        if self.taken >= self._left:
            raise Killed
        self.taken += 1
        return do()


class Storage(optuna.storages.InMemoryStorage):
    """A study that outlives the processes that write to it; each write is a step."""

    process = Process()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in WRITES:
            return found
        return lambda *args, **kwargs: self.process.step(lambda: found(*args, **kwargs))


class ScoringPool:
    """Writes the files of a training in their order; an epoch's MAE is a formula of the trial's values."""

    slots = 1

    def __init__(self, process: Process) -> None:
        self._process = process

    def __enter__(self) -> "ScoringPool":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, key: str, config: Config) -> None:
        """See `Pool`."""
        self._key, self._raw, self._goes_on = key, config_to_dict(config), True

    def decide(self, key: str, continues: bool) -> None:
        """See `Pool`."""
        self._goes_on = continues

    def next(self) -> tuple[str, Event]:
        """See `Pool`."""
        if not self._goes_on:
            return self._key, Stopped()
        folder = RunFolder(Path(self._raw["run"]["storage"]) / self._raw["run"]["name"])
        epoch = len(list_checkpoints(folder.checkpoints))
        if epoch == EPOCHS:
            maes = [mae_of(self._raw, e) for e in range(EPOCHS)]
            result = run_result({"mae": min(maes)}, steps=EPOCHS, best_epoch=maes.index(min(maes)))
            self._process.step(lambda: folder.result_path.write_text(json.dumps(result.to_json())))
            return self._key, Ended(result)
        self._process.step(lambda: self._train(folder, epoch))
        self._process.step(lambda: write_checkpoint(folder, epoch + 1))
        return self._key, Epoch(epoch, mae_of(self._raw, epoch))

    def _train(self, folder: RunFolder, epoch: int) -> None:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        log = folder.metrics_log()
        log.trim(epoch)
        mae = mae_of(self._raw, epoch)
        validation = {"student": {"mae": mae}}
        if epoch == 0:
            log.append(line({"kind": "start"}))
        log.append(line({"kind": "epoch", "epoch": epoch, "step": epoch + 1, "validation": validation}))
        (folder.checkpoints / f"step-{epoch + 1}").mkdir(exist_ok=True)


def write_checkpoint(folder: RunFolder, step: int) -> None:
    """A manifest, which makes a folder a checkpoint to continue from."""
    write_json(
        folder.checkpoints / f"step-{step}" / "manifest.json",
        manifest(step, {"state-0.json": {"bytes": 0, "sha256": ""}}),
    )


def mae_of(raw: dict[str, Any], epoch: int) -> float:
    """MAEs whose curves cross: the trial that is better after one epoch may be worse after two."""
    alpha, psi = (math.log10(raw["objective"][weight] + 0.01) for weight in ("alpha", "psi"))
    return 1 + 0.1 * alpha**2 + (2 + math.sin(3 * psi) - (raw["student"]["pooling"] == "mean")) / (epoch + 1) ** 1.5


@pytest.fixture
def space(tmp_path: Path) -> Space:
    (tmp_path / "space.yaml").write_text(SPACE)
    return load_space(tmp_path / "space.yaml", Config())[0]


class Machine:
    """Runs processes of one search one after another."""

    def __init__(self, root: Path, space: Space, settings: SearchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self._space, self._settings = space, settings
        config = Config()
        run = dataclasses.replace(config.run, storage=str(root))
        self._config = dataclasses.replace(config, run=run, trainer=dataclasses.replace(config.trainer, epochs=EPOCHS))
        self._storage = Storage()
        monkeypatch.setattr(study_module, "open_storage", lambda url: self._storage)
        self.root = root
        self.ended: list[int] = []

    def open(self) -> Study:
        """Open the study."""
        return Study.open("memory", "s", self._space, self._config, self._settings)

    def job(self, study: Study, asked: Asked) -> TrialJob:
        """The training of a trial."""
        return TrialJob(study, asked, self._config_of(asked), lambda asked, event: self.ended.append(asked.number))

    def search(self, process: Process) -> bool:
        """Start or resume the search; False if the process is killed before the end."""
        self._storage.process = process
        try:
            study = self.open()

            def jobs() -> Iterator[TrialJob]:
                for asked in study.unfinished():
                    yield self.job(study, asked)
                while (asked := study.ask()) is not None:
                    yield self.job(study, asked)

            drive(ScoringPool(process), jobs(), TrainedOn((), EncoderIdentity("encoder", None, None)))
        except Killed:
            return False
        return True

    def _config_of(self, asked: Asked) -> Config:
        config = dataclasses.replace(self._config, run=dataclasses.replace(self._config.run, name=str(asked.number)))
        for field, value in asked.values.items():
            section, name = field.split(".")
            part: Any = dataclasses.replace(getattr(config, section), **{name: value})
            config = dataclasses.replace(config, **{section: part})
        return config

    def trials(self) -> list[tuple[Any, ...]]:
        """States, values and costs of all trials."""
        trials = optuna.load_study(study_name="s", storage=self._storage).get_trials()
        return [(t.state, t.user_attrs["values"], t.intermediate_values, t.value) for t in trials]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_search_killed_at_any_step_ends_like_an_uninterrupted_one(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr(study_module, "_STARTUP", 4)  # so that TPE models the last trials
    settings = SearchConfig(num_trials=TRIALS, sampler=sampler, seed=3, reduction=2)  # type: ignore[arg-type]
    unbroken = Machine(tmp_path / "whole", space, settings, monkeypatch)
    process = Process()
    assert unbroken.search(process)
    whole = unbroken.trials()
    states = [trial[0] for trial in whole]
    assert len(whole) == TRIALS
    assert {TrialState.COMPLETE, TrialState.PRUNED} == set(states)
    for steps in range(process.taken):
        machine = Machine(tmp_path / str(steps), space, settings, monkeypatch)
        assert not machine.search(Process(steps))
        assert machine.search(Process())
        assert machine.trials() == whole, f"killed after {steps} of {process.taken} steps"
        # No trial ends twice, none is missing, and no checkpoints are left.
        assert sorted(set(machine.ended)) == machine.ended
        assert not list(machine.root.glob("*/checkpoints"))


def test_epoch_that_ended_after_its_search_was_killed_is_reported_first(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SearchConfig(num_trials=2, sampler="random", reduction=2)
    machine = Machine(tmp_path / "runs", space, settings, monkeypatch)
    study = machine.open()
    asked = [study.ask(), study.ask()]
    assert asked[1] is not None
    job = machine.job(study, asked[1])
    assert job.begin() is None
    # The actor of the killed search ends epochs 0 and 1 before that of this search gets the run's lock.
    folder = RunFolder(tmp_path / "runs" / "1")
    (folder.checkpoints / "step-3").mkdir(parents=True)
    write_checkpoint(folder, 3)
    folder.metrics_log().append(line({"kind": "start"}))
    for epoch, mae in enumerate((3.0, 2.0, 1.0)):
        ended = {"kind": "epoch", "epoch": epoch, "step": epoch + 1, "validation": {"student": {"mae": mae}}}
        folder.metrics_log().append(line(ended))
    assert job.on_epoch(Epoch(2, 1.0))
    assert machine.open().trials()[1].intermediate_values == {1: 3.0, 2: 2.0, 3: 1.0}

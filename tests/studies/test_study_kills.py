"""A study that is killed at any step and started again trains every run once, and loses none."""

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_lines import run_result

from vadv_dist.config import Config
from vadv_dist.config.study import StudyConfig, VariantConfig
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.runs.checkpoint import list_checkpoints, manifest
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.trained_on import TrainedOn
from vadv_dist.storage import write_json
from vadv_dist.studies import study as study_module
from vadv_dist.studies.checks import CheckedStudy
from vadv_dist.studies.plan import StudyPlan
from vadv_dist.studies.study import train_study, work_text
from vadv_dist.tasks.sentiment import describe
from vadv_dist.tuning.events import Ended, Epoch, Event, Failed, Lost

EPOCHS = 2


class Killed(BaseException):
    """The process ends here."""


class FaultyPool:
    """Writes the files of trainings in their order, two at a time; each write is a step, before one of which it dies.

    The variant `bad` fails, and every process of a run is lost once.
    """

    slots = 2

    def __init__(self, lost: set[str], trained: Counter[tuple[str, int]], steps: float) -> None:
        self._lost, self._trained, self._left, self.taken = lost, trained, steps, 0
        self._running: dict[str, Config] = {}

    def __enter__(self) -> "FaultyPool":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, key: str, config: Config) -> None:
        """See `Pool`."""
        assert len(self._running) < self.slots
        assert key not in self._running
        self._running[key] = config

    def decide(self, key: str, continues: bool) -> None:
        """See `Pool`."""
        assert continues

    def next(self) -> tuple[str, Event]:
        """See `Pool`: the training that has waited longest goes on."""
        key, config = next(iter(self._running.items()))
        event = self._advance(key, config)
        del self._running[key]
        if isinstance(event, Epoch):
            self._running[key] = config
        return key, event

    def _advance(self, key: str, config: Config) -> Event:
        folder = RunFolder.of(config)
        epoch = len(list_checkpoints(folder.checkpoints))
        if key not in self._lost and epoch:
            self._lost.add(key)
            return Lost("its node is gone")
        if config.run.name.startswith("bad"):
            return Failed("crash", "it is bad")
        if epoch < EPOCHS:
            self._step(lambda: write_checkpoint(folder, epoch + 1))
            self._trained[config.run.name, epoch] += 1
            return Epoch(epoch, 1.0)
        result = run_result({"mae": 1.0}, steps=EPOCHS, best_epoch=1)
        self._step(lambda: folder.result_path.write_text(json.dumps(result.to_json())))
        return Ended(result)

    def _step(self, do: Callable[[], Any]) -> None:
        if self.taken >= self._left:
            raise Killed
        self.taken += 1
        do()


def write_checkpoint(folder: RunFolder, step: int) -> None:
    (folder.checkpoints / f"step-{step}").mkdir(parents=True)
    write_json(
        folder.checkpoints / f"step-{step}" / "manifest.json",
        manifest(step, {"state-0.json": {"bytes": 0, "sha256": ""}}),
    )


def planned(root: Path) -> tuple[StudyPlan, CheckedStudy]:
    names = ("one", "two", "bad")
    study = StudyConfig(title="t", variants={name: VariantConfig() for name in names}, seeds=(1, 2))
    config = Config()
    config = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, num_workers=0))
    task = describe(LabelScale())
    plan = StudyPlan(study, "study.yaml", root, dict.fromkeys(names, config))
    return plan, CheckedStudy(task, task.metrics, dict.fromkeys(names, TrainedOn((), None)))


def test_study_killed_at_any_step_trains_every_run_to_its_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in itertools.count():
        plan, checked = planned(tmp_path / str(steps))
        lost: set[str] = set()
        trained: Counter[tuple[str, int]] = Counter()
        ends: list[str] = []
        killed = True
        for left in (steps, math.inf):
            pool = FaultyPool(lost, trained, left)
            monkeypatch.setattr(study_module, "pool_for", lambda *_, pool=pool, **__: pool)
            try:
                train_study(plan, checked, ends.append, use_ray=True)
                killed = False
            except Killed:
                assert left == steps
        states = Counter((run.variant, run.state) for run in plan.runs)
        assert states == {("one", "complete"): 2, ("two", "complete"): 2, ("bad", "failed"): 2}
        # An epoch whose checkpoint was written is never trained again.
        assert set(trained.values()) == {1}
        assert len(trained) == 4 * EPOCHS
        assert sum("failed" in line for line in ends) == 2
        assert "0 to train" in work_text(plan)
        if not killed and pool.taken == 0:
            break
    assert steps == 4 * (EPOCHS + 1)


def test_run_whose_process_is_lost_too_often_fails_and_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, checked = planned(tmp_path)

    class LosingPool(FaultyPool):
        def _advance(self, key: str, config: Config) -> Event:
            return Lost("its node is gone") if key == "one, seed 1" else super()._advance(key, config)

    monkeypatch.setattr(study_module, "pool_for", lambda *_, **__: LosingPool(set(), Counter(), math.inf))
    said: list[str] = []
    train_study(plan, checked, said.append, use_ray=True)
    times = plan.runs[0].config.trainer.max_failures + 1
    assert any(line.startswith("one, seed 1") and f"lost {times} time" in line for line in said), said
    assert [run.state for run in plan.runs if run.variant == "two"] == ["complete", "complete"]

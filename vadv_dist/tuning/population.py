"""Population-based training: trials train side by side, and after each interval the worst continue from the best.

All trials reach the end of an interval before anything is decided, however few train at a time, so a search ends the
same with any number of slots. A search can be killed at any point: a decision is stored in the study before it is
carried out, each of its steps happens once and as a whole, and no trial continues before all of them are done.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypedDict

from optuna.trial import TrialState

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tuning.events import Event
from vadv_dist.tuning.fork import fork
from vadv_dist.tuning.jobs import Job, TrialJob, strip
from vadv_dist.tuning.objectives import BY_KEY
from vadv_dist.tuning.pbt import Exploit, decide
from vadv_dist.tuning.space import WEIGHTS, Schedule, Space, Value, constant, values_text
from vadv_dist.tuning.study import Asked, Study

# Fields that can change while the weights stay: they affect no shape, no order of clips and no set of trained weights.
_CHANGEABLE = (
    *("optimizer.", "objective.detach_targets", *(f"objective.{weight}" for weight in WEIGHTS)),
    *("student.dropout", "student.encoder_dropout", "teacher.dropout"),
)
_KEY = "population after "


def require_population(config: Config, space: Space, search: SearchConfig) -> None:
    """Check that a search can be trained as a population.

    Raises:
        UserError: with what to change.
    """
    trainer = config.trainer
    for entry in space.searched:
        if not entry.field.startswith(_CHANGEABLE):
            raise UserError(
                f"{entry.field} cannot change during a run, because the weights would no longer fit or would mean "
                "something else. Fix it in the space, or set search.scheduler: asha."
            )
    if trainer.workers:
        raise UserError(
            f"trainer.num_workers is {trainer.num_workers}, but search.scheduler: pbt needs trials that wait at the "
            "end of an epoch. Set trainer.num_workers: 0, or search.scheduler: asha."
        )
    for name in ("patience", "max_steps"):
        if getattr(trainer, name) is not None:
            raise UserError(
                f"trainer.{name} is {getattr(trainer, name)}, but all trials of a population train the same number of "
                f"epochs. Set trainer.{name}: null."
            )
    if search.interval >= trainer.epochs:
        raise UserError(
            f"search.interval is {search.interval}, expected less than trainer.epochs ({trainer.epochs}): nothing "
            "would ever be perturbed."
        )


class Decision(TypedDict):
    """The copies after an epoch, and the costs by trial that they were decided from."""

    epoch: int
    scores: dict[str, float]
    exploits: list[Exploit]


@dataclass
class Population:
    """The trials of one search.

    Args:
        study: where they are stored.
        space, base, search: what is searched.
        config_of: configuration of a run, from its name and values.
        on_end: called with each trial that ends.
        say: called with each decision, in words.
        drive: runs jobs.
    """

    study: Study
    space: Space
    base: Config
    search: SearchConfig
    config_of: Callable[[str, dict[str, Value]], Config]
    on_end: Callable[[Asked, Event], None]
    say: Callable[[str], None]
    drive: Callable[[Iterator[Job]], None]
    # Run name and values of each trial.
    _runs: dict[int, tuple[str, dict[str, Value]]] = field(default_factory=dict)

    def run(self) -> None:
        """Train all trials to the end; resume where a killed search stopped."""
        trials = self.study.unfinished()
        while (asked := self.study.ask()) is not None:
            trials.append(asked)
        self._runs = {t.number: (str(t.number), self.study.values(t)) for t in self.study.trials()}
        for epoch in range(self.search.interval, self.base.trainer.epochs, self.search.interval):
            decision = self.study.optuna.user_attrs.get(f"{_KEY}{epoch}")
            if decision is None:
                self._train(trials, epoch)
                decision = self._decide(trials, epoch)
                self.study.optuna.set_user_attr(f"{_KEY}{epoch}", decision)
                self._say(decision)
            self._carry_out(decision)
        self._train(trials, None)

    def _train(self, trials: list[Asked], until: int | None) -> None:
        self.drive(
            TrialJob(self.study, asked, self.config_of(*self._runs[asked.number]), self.on_end, until)
            for asked in self._running(trials)
        )

    def _running(self, trials: list[Asked]) -> list[Asked]:
        states = {trial.number: trial.state for trial in self.study.trials()}
        return [asked for asked in trials if states[asked.number] == TrialState.RUNNING]

    def _decide(self, trials: list[Asked], epoch: int) -> Decision:
        costs = {asked.number: asked.reported[epoch - 1] for asked in self._running(trials)}
        values = {number: values for number, (_, values) in self._runs.items()}
        exploits = decide(costs, values, epoch, space=self.space, base=self.base, search=self.search)
        return {"epoch": epoch, "scores": {str(n): cost for n, cost in costs.items()}, "exploits": exploits}

    def _carry_out(self, decision: Decision) -> None:
        """Copy checkpoints, then remove those that are no longer needed."""
        before = {number: RunFolder.of(self.config_of(*run)) for number, run in self._runs.items()}
        for exploit in decision["exploits"]:
            trial = exploit["trial"]
            self._runs[trial] = (f"{trial}-from-{decision['epoch']}", exploit["values"])
            fork(before[exploit["source"]], self.config_of(*self._runs[trial]), decision["epoch"])
        for exploit in decision["exploits"]:
            strip(before[exploit["trial"]])

    def _say(self, decision: Decision) -> None:
        score = BY_KEY[self.search.objectives[0]]
        for exploit in decision["exploits"]:
            trial, source = (
                f"trial {number} ({score.phrase(decision['scores'][str(number)])})"
                for number in (exploit["trial"], exploit["source"])
            )
            values = values_text(exploit["values"])
            self.say(f"after epoch {decision['epoch']}: {trial} continues from {source} with {values}")


def decisions(study: Study) -> list[Decision]:
    """The decisions in order."""
    found = [decision for key, decision in study.optuna.user_attrs.items() if key.startswith(_KEY)]
    return sorted(found, key=lambda decision: int(decision["epoch"]))


def histories(study: Study) -> dict[int, Schedule]:
    """By trial, the values with which its current weights were trained."""
    found = {trial.number: constant(study.values(trial)) for trial in study.trials()}
    for decision in decisions(study):
        before = dict(found)
        for exploit in decision["exploits"]:
            found[exploit["trial"]] = (*before[exploit["source"]], (decision["epoch"], exploit["values"]))
    return found


def schedules(study: Study) -> dict[int, Schedule]:
    """By trial, the values that led to its best checkpoint; later changes had no part in it."""
    best = {trial.number: trial.user_attrs.get("best_epoch", math.inf) for trial in study.trials()}
    return {
        number: tuple((epoch, values) for epoch, values in schedule if epoch <= best[number])
        for number, schedule in histories(study).items()
    }

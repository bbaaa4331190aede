"""Population-based training: trials train at the same time, and at each interval the worst continue from the best.

All trials come to the end of an interval before anything is decided, however few train at a time, so that a search ends
alike on any number of slots. A decision is written into the study before anything of it is done, each thing done is
whole or not at all and done once, and no trial trains on before all of them are done: a search may be killed anywhere.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from optuna.trial import TrialState

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import MachineError, UserError
from vadv_dist.reporting.words import decimals
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tuning.events import Epoch, Event, Stopped
from vadv_dist.tuning.fork import epochs_behind, fork
from vadv_dist.tuning.jobs import Job, TrialJob, drive, epochs_of, strip
from vadv_dist.tuning.objectives import BY_KEY
from vadv_dist.tuning.pbt import decide
from vadv_dist.tuning.pools import Pool
from vadv_dist.tuning.schedule import Schedule, constant
from vadv_dist.tuning.space import Space, Value
from vadv_dist.tuning.study import Asked, Study

# Fields that may change while the weights stay: they alter no shape, no order of clips and no set of trained weights.
_CHANGEABLE = (
    *("optimizer.", "objective.alpha", "objective.beta", "objective.gamma", "objective.delta", "objective.psi"),
    *("objective.detach_targets", "student.dropout", "student.encoder_dropout", "teacher.dropout"),
)


def require_population(config: Config, space: Space, search: SearchConfig) -> None:
    """Check that a search can be trained as a population.

    Raises:
        UserError: with what to change.
    """
    trainer = config.trainer
    for entry in space.searched:
        if not entry.field.startswith(_CHANGEABLE):
            raise UserError(
                f"{entry.field} cannot change in the middle of a run, as the weights would no longer fit or mean "
                "something else. Fix it in the space, or set search.scheduler: asha."
            )
    if trainer.num_workers:
        raise UserError(
            f"trainer.num_workers is {trainer.num_workers}, and search.scheduler: pbt needs trials that wait at the "
            "end of an epoch. Set trainer.num_workers: 0, or search.scheduler: asha."
        )
    for name in ("patience", "max_steps"):
        if getattr(trainer, name) is not None:
            raise UserError(
                f"trainer.{name} is {getattr(trainer, name)}, and a population's trials all train the same epochs. "
                f"Set trainer.{name}: null."
            )
    if search.interval >= trainer.epochs:
        raise UserError(
            f"search.interval is {search.interval}, expected less than trainer.epochs ({trainer.epochs}): nothing "
            "would ever be perturbed."
        )


@dataclass
class Population:
    """The trials of one search.

    Args:
        study: where they are kept.
        space, base, search: what is searched.
        config_of: configuration of a run folder's name and values.
        told: called with each trial that ends.
        say: called with what was decided, in words.
    """

    study: Study
    space: Space
    base: Config
    search: SearchConfig
    config_of: Callable[[str, dict[str, Value]], Config]
    told: Callable[[Asked, Event], None]
    say: Callable[[str], None]
    _lives: dict[int, tuple[str, dict[str, Value]]] = field(default_factory=dict)

    def run(self, pool: Pool) -> None:
        """Train all trials to the end, resuming where necessary."""
        trials = self.study.unfinished()
        while (asked := self.study.ask()) is not None:
            trials.append(asked)
        self._lives = {t.number: (str(t.number), self.study.values(t)) for t in self.study.trials()}
        for epoch in range(self.search.interval, self.base.trainer.epochs, self.search.interval):
            record = self.study.recall(_key(epoch))
            if record is None:
                self._train(pool, trials, epoch)
                record = self._decide(trials, epoch)
                self.study.remember(_key(epoch), record)
                self._say(record)
            self._carry_out(record)
        self._train(pool, trials, None)

    def _train(self, pool: Pool, trials: list[Asked], until: int | None) -> None:
        def jobs() -> Iterator[Job]:
            for asked in self._running(trials):
                yield MemberJob(self.study, asked, self.config_of(*self._lives[asked.number]), self.told, until)

        todo = jobs()
        drive(pool, lambda: next(todo, None))

    def _running(self, trials: list[Asked]) -> list[Asked]:
        states = {trial.number: trial.state for trial in self.study.trials()}
        return [asked for asked in trials if states[asked.number] == TrialState.RUNNING]

    def _decide(self, trials: list[Asked], epoch: int) -> dict[str, Any]:
        scores = {asked.number: asked.reported[epoch - 1] for asked in self._running(trials)}
        values = {number: values for number, (_, values) in self._lives.items()}
        exploits = decide(scores, values, epoch, space=self.space, base=self.base, search=self.search)
        return {
            "epoch": epoch,
            "scores": {str(number): cost for number, cost in scores.items()},
            "exploits": [asdict(exploit) for exploit in exploits],
        }

    def _carry_out(self, record: dict[str, Any]) -> None:
        """Copy checkpoints, then remove those that are no longer needed."""
        before = dict(self._lives)
        for exploit in record["exploits"]:
            trial, values = exploit["trial"], exploit["values"]
            name = f"{trial}-from-{record['epoch']}"
            self._lives[trial] = (name, values)
            fork(self._folder(before[exploit["source"]]), self.config_of(name, values), record["epoch"])
        for exploit in record["exploits"]:
            strip(self._folder(before[exploit["trial"]]))

    def _folder(self, life: tuple[str, dict[str, Value]]) -> RunFolder:
        return RunFolder.of(self.config_of(*life))

    def _say(self, record: dict[str, Any]) -> None:
        score = BY_KEY[self.search.objectives[0]]
        for exploit in record["exploits"]:
            cost = {n: record["scores"][str(n)] for n in (exploit["trial"], exploit["source"])}
            values = ", ".join(
                f"{name.split('.')[-1]} {decimals(v) if isinstance(v, float) else v}"
                for name, v in exploit["values"].items()
            )
            self.say(
                f"after epoch {record['epoch']}: trial {exploit['trial']} ({score.told(cost[exploit['trial']])}) "
                f"continues from trial {exploit['source']} ({score.told(cost[exploit['source']])})  ({values})"
            )


class MemberJob(TrialJob):
    """A trial that trains to the end of an interval and stops there with a checkpoint.

    Args:
        study, asked, config, on_end: see `TrialJob`.
        until: epochs after which it waits; None trains to the end.
    """

    def __init__(
        self, study: Study, asked: Asked, config: Config, on_end: Callable[[Asked, Event], None], until: int | None
    ) -> None:
        super().__init__(study, asked, config, on_end)
        self._until = until

    def begin(self) -> Event | None:
        """See `Job`."""
        if self._until is None or epochs_behind(self._folder) < self._until:
            return super().begin()
        for epoch, cost in epochs_of(self._folder):
            self._study.report(self._asked, epoch, cost)
        if self._until - 1 not in self._asked.reported:
            raise MachineError(
                f"{self._folder.root} has a checkpoint after epoch {self._until}, but its metrics.jsonl does not tell "
                "of it. It was changed from outside; give the search another name (--run.name=…)."
            )
        return Stopped()

    def on_epoch(self, event: Epoch) -> bool:
        """See `Job`."""
        goes_on = super().on_epoch(event)
        return goes_on if self._until is None else event.epoch + 1 < self._until

    def on_end(self, event: Event) -> bool:
        """See `Job`."""
        return False if isinstance(event, Stopped) else super().on_end(event)


def records(study: Study) -> list[dict[str, Any]]:
    """What was decided, in order: epoch, scores by trial, exploits."""
    noted = [record for key, record in study.memory().items() if key.startswith(_key(""))]
    return sorted(noted, key=lambda record: int(record["epoch"]))


def schedules(study: Study) -> dict[int, Schedule]:
    """By trial, the values that led to its best checkpoint: what came after that had no part in it."""
    best = {trial.number: trial.user_attrs.get("best_epoch", math.inf) for trial in study.trials()}
    return {
        number: tuple((epoch, values) for epoch, values in schedule if epoch <= best[number])
        for number, schedule in histories(study).items()
    }


def histories(study: Study) -> dict[int, Schedule]:
    """By trial, the values under which the weights were trained that it has now."""
    found = {trial.number: constant(study.values(trial)) for trial in study.trials()}
    for record in records(study):
        before = dict(found)
        for exploit in record["exploits"]:
            found[exploit["trial"]] = (*before[exploit["source"]], (record["epoch"], exploit["values"]))
    return found


def _key(epoch: int | str) -> str:
    return f"population after {epoch}"

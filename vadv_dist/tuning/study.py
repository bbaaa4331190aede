"""The persistent state of a search: an Optuna study with ask and tell, which can be resumed at any point.

All state is in Optuna's storage: trials, their parameters, costs of epochs, which were stopped, and how they ended. A
process that resumes a search continues the running trials from their checkpoints and starts only the remaining ones.
Why Ray Tune's own searchers and schedulers do not decide: `tune_adapters.py`.

The sampler is created for every trial from the search's seed and the trial's number, so suggestions depend on these and
on the trials known at that time, but not on how often the driver was started.

Asynchronous successive halving (Li et al., arXiv:1810.05934) is decided from reported costs alone. Optuna's pruner
stores that a trial has passed a rung before it returns its decision, so a search killed in between would continue a
trial that should have stopped.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.storage_url import shown, without_secrets
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runs.records import RunResult
from vadv_dist.tuning.events import Failed
from vadv_dist.tuning.objectives import BY_KEY
from vadv_dist.tuning.space import Space, Value

# Random trials before TPE starts to model.
_STARTUP = 10


@dataclass(frozen=True)
class Asked:
    """A trial to run.

    Args:
        number: counted from 0, which is the default.
        values: the fields that it sets.
        reported: validation costs that the study has, by epoch from 0.
        handle: Optuna's trial.
    """

    number: int
    values: dict[str, Value]
    reported: dict[int, float]
    handle: optuna.trial.Trial


class Study:
    """A study in Optuna's storage.

    Args:
        study: a study with a name of its own.
        space: what is searched.
        base: the configuration that is varied.
        search: settings.
    Attributes:
        optuna: the study.
        has_several: whether there are several objectives.
    """

    def __init__(self, study: optuna.Study, space: Space, base: Config, search: SearchConfig) -> None:
        self.optuna, self.has_several = study, len(search.objectives) > 1
        self._space, self._base, self._search = space, base, search

    @classmethod
    def open(cls, url: str, name: str, space: Space, base: Config, search: SearchConfig) -> "Study":
        """Open or create a study.

        Raises:
            MachineError: the storage cannot be reached.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with storage_faults(url, "Nothing was started."):
            study = optuna.create_study(
                storage=open_storage(url),
                study_name=name,
                directions=[
                    "minimize",
                    *("minimize" if BY_KEY[key].lower_is_better else "maximize" for key in search.objectives[1:]),
                ],
                load_if_exists=True,
            )
            # A search that was killed here has queued some of them.
            queued = sum("queued" in trial.user_attrs for trial in study.get_trials(deepcopy=False))
            for values in (space.default(base), *space.first)[queued:]:
                study.enqueue_trial(space.parameters(values, base), user_attrs={"queued": True})
            return cls(study, space, base, search)

    @classmethod
    def read(cls, url: str, name: str, space: Space, base: Config, search: SearchConfig) -> "Study":
        """Open a study to read it.

        Raises:
            UserError: it has not been created yet.
            MachineError: the storage cannot be reached.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with storage_faults(url, "Nothing was written."):
            try:
                study = optuna.load_study(storage=open_storage(url), study_name=name)
            except KeyError:
                raise UserError(f"{shown(url)} has no study {name}: the search has not started a trial yet.") from None
            return cls(study, space, base, search)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        return [t for t in self.optuna.get_trials(deepcopy=False) if t.state != TrialState.WAITING]

    def unfinished(self) -> list[Asked]:
        """Trials that were running when the search was interrupted."""
        running = self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [self._asked(trial.number, partial(self._handle, trial)) for trial in running]

    def ask(self) -> Asked | None:
        """The next trial, or None if the requested number has been started."""
        begun = len(self.trials())
        if begun >= self._search.num_trials:
            return None
        return self._asked(begun, self.optuna.ask)

    def report(self, asked: Asked, epoch: int, cost: float) -> bool:
        """Record the validation cost of an epoch, and return whether the trial may continue."""
        if epoch not in asked.reported:
            asked.reported[epoch] = cost
            if self.has_several:  # Optuna accepts intermediate values only with a single objective
                asked.handle.set_user_attr("epochs", {str(e + 1): value for e, value in asked.reported.items()})
            else:
                asked.handle.report(cost, step=epoch + 1)
        return self._goes_on(asked, epoch)

    def falls_behind(self, asked: Asked) -> bool:
        """Whether a trial should be stopped after its last known epoch."""
        return bool(asked.reported) and not self._goes_on(asked, max(asked.reported))

    def _goes_on(self, asked: Asked, epoch: int) -> bool:
        # Everything is compared with the default, so it is never stopped; nor is a trial that has reached its end.
        if asked.number == 0 or epoch + 1 >= self._base.trainer.epochs:
            return True
        if self._search.scheduler != "asha" or self.has_several or not is_rung(self._search, epoch + 1):
            return True
        # A stored decision is final, whatever other trials have reported since. If the search was killed just before
        # it was stored, the same values lead to the same decision now.
        stored = self._frozen(asked.number).user_attrs.get("decision")
        if stored is not None and stored["epoch"] >= epoch:
            return bool(stored["goes_on"])
        others = [t.intermediate_values for t in self.trials() if t.number not in (0, asked.number)]
        goes_on = passes_rung(self._search, epoch + 1, asked.reported[epoch], others)
        asked.handle.set_user_attr("decision", {"epoch": epoch, "goes_on": goes_on})
        return goes_on

    def begin(self, asked: Asked, step: int) -> int:
        """Record that a trial starts from a checkpoint's step; return how often it has started from there."""
        place = {"epochs": len(asked.reported), "step": step}
        stored = self._frozen(asked.number).user_attrs.get("starts", {})
        count = stored["count"] + 1 if stored.items() >= place.items() else 1
        asked.handle.set_user_attr("starts", {**place, "count": count})
        return int(count)

    def withdraw(self, asked: Asked) -> None:
        """Record that the last start of a trial does not count."""
        starts = self._frozen(asked.number).user_attrs["starts"]
        asked.handle.set_user_attr("starts", {**starts, "count": starts["count"] - 1})

    def complete(self, asked: Asked, result: RunResult) -> None:
        """Record a trial that ran to its end, by the objectives at the best of its epochs."""
        asked.handle.set_user_attr("best_epoch", result.best_epoch)
        asked.handle.set_user_attr("wall_time_s", result.wall_time_s)
        asked.handle.set_user_attr("remarks", result.remarks)
        values = [result.cost, *(BY_KEY[key].read(result) for key in self._search.objectives[1:])]
        self.optuna.tell(asked.handle, values)

    def prune(self, asked: Asked) -> None:
        """Record a trial that was stopped for falling behind."""
        self.optuna.tell(asked.handle, state=TrialState.PRUNED)

    def fail(self, asked: Asked, failure: Failed) -> None:
        """Record a trial that failed, with the reason."""
        asked.handle.set_user_attr("failure", {"kind": failure.kind, "message": failure.message[:2000]})
        self.optuna.tell(asked.handle, state=TrialState.FAIL)

    def values(self, trial: FrozenTrial) -> dict[str, Value]:
        """Values of the fields that a trial set."""
        values: dict[str, Value] = trial.user_attrs.get("values", {})
        return values

    def failure(self, trial: FrozenTrial) -> dict[str, str] | None:
        """Kind and message of a trial's failure; None if it has not failed."""
        failure: dict[str, str] = trial.user_attrs.get("failure", {"kind": "crash", "message": ""})
        return failure if trial.state == TrialState.FAIL else None

    def complete_trials(self) -> list[FrozenTrial]:
        """Trials that ran to their end, the best first."""
        complete = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return sorted(complete, key=lambda trial: (trial.values[0], trial.number))

    def _asked(self, number: int, take: Callable[[], optuna.trial.Trial]) -> Asked:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some samplers are experimental
            self.optuna.sampler = self._sampler(number)
            handle = take()
            values = self._space.suggest(handle, self._base)
        handle.set_user_attr("values", values)
        known = costs_by_epoch(self._frozen(handle.number))
        return Asked(handle.number, values, {step - 1: cost for step, cost in known.items()}, handle)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """A sampler whose draws depend only on the search's seed and the trial's number."""
        digest = hashlib.sha256(json.dumps([self._search.seed, number]).encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        if self._search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if self._search.sampler == "nsga2":
            # Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II (2002).
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=self._search.generation)
        grouped = any(entry.condition for entry in self._space.entries)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_STARTUP, multivariate=True, group=grouped, constant_liar=True
        )

    def _handle(self, trial: FrozenTrial) -> optuna.trial.Trial:
        """Load a trial that another process started."""
        handle = optuna.trial.Trial(self.optuna, trial._trial_id)
        if "values" not in trial.user_attrs:
            # The search was killed while it drew the parameters. Draw the stored ones again and discard the result, so
            # that the generator yields the same values for the others.
            given = {*handle.relative_params, *trial.system_attrs.get("fixed_params", ())}
            for name, distribution in trial.distributions.items():
                if name not in given and not distribution.single():
                    self.optuna.sampler.sample_independent(self.optuna, trial, name, distribution)
        return handle

    def _frozen(self, number: int) -> FrozenTrial:
        return self.optuna.get_trials(deepcopy=False)[number]


def is_rung(search: SearchConfig, epochs: int) -> bool:
    """Whether this number of epochs is a rung."""
    rung = search.min_epochs
    while rung < epochs:
        rung *= search.reduction
    return rung == epochs


def passes_rung(search: SearchConfig, epochs: int, cost: float, others: Iterable[Mapping[int, float]]) -> bool:
    """Whether a trial may continue after a rung.

    Args:
        search: settings; one in `search.reduction` trials continues.
        epochs: number of epochs that the trial has trained.
        cost: its validation cost.
        others: validation costs by number of epochs of all other trials, ended or not.
    """
    competing = sorted([cost, *(costs[epochs] for costs in others if epochs in costs)])
    # Of the first few trials at a rung, the best so far passes.
    passing = max(len(competing) // search.reduction, 1)
    return cost <= competing[passing - 1]


def costs_by_epoch(trial: FrozenTrial) -> dict[int, float]:
    """Validation costs of a trial by number of epochs trained."""
    known: dict[str, float] = trial.user_attrs.get("epochs", {})
    return trial.intermediate_values or {int(step): cost for step, cost in known.items()}


@contextmanager
def storage_faults(url: str, safe: str) -> Iterator[None]:
    """Report an unusable storage in one message without its password."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("sqlalchemy", "optuna", "psycopg")):
            raise
        raise _unusable(url, error, f"{safe} Check search.storage, and that the database runs.") from error


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Open an RDB, or a journal file if `url` is a path."""
    if "://" not in url:
        Path(url).parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.JournalStorage(JournalFileBackend(url))
    # Another process, such as a dashboard, may have the SQLite file open: wait for it instead of failing.
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except ImportError as error:
        advice = "Install its driver; postgresql+psycopg://… needs vadv-dist[postgres]."
        raise _unusable(url, error, f"Nothing was started. {advice}") from error


def _unusable(url: str, error: Exception, advice: str) -> MachineError:
    cause = error.__cause__ or error.__context__ or error  # Optuna's message does not repeat that of the database
    what = without_secrets((str(cause).splitlines() or [type(cause).__name__])[0], url)
    return MachineError(f"The study's storage {shown(url)} cannot be used: {what}. {advice}")

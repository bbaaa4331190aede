"""Between Ray Tune's loop and the thread that drives a search: a searcher and a scheduler that ask it.

Tune decides when and where a trial runs; what is trained, and whether it goes on, is the durable study's decision.
Ray's own searchers and schedulers cannot take it: OptunaSearch keeps its study, ASHAScheduler its rungs and
PopulationBasedTraining its population in the driver's memory, and Tune restores them by unpickling its experiment
state. Here, a search that was killed continues from Optuna's storage and the run folders, and nothing is unpickled.
ASHA is decided from stored costs (`study.py`), a population at the end of an interval for all trials together
(`population.py`), so the result does not depend on how many trials run at a time.
"""

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from vadv_dist.config import Config, config_to_dict
from vadv_dist.runtime.ray_errors import last_line
from vadv_dist.tuning.events import Blocked, Ended, Epoch, Event, Failed, Lost, Stopped
from vadv_dist.tuning.trial_actor import KEY, RESOURCES, event_of

_IDLE_S, _LOOK_S = 5.0, 1.0


class AbandonedError(Exception):
    """Ends Tune's loop when the search does."""


class Exchange:
    """Where the search's thread (`take`, `give`, `decide`) and Tune's loop (the rest) meet.

    Tune's loop waits until an event is handled, so that the training to start next is there when a trial has ended, and
    takes over its process.

    Attributes:
        has_room: whether Tune waits for a training to start.
        leaving: no more trainings start, and no event is handled.
        abandoned: Tune's loop is to end at once.
        trials: Tune's trials.
        num_waiting: those that wait for resources, if none runs, else 0.
    """

    def __init__(self) -> None:
        self.has_room = self.leaving = self.abandoned = False
        self.trials: list[Any] = []
        self.num_waiting = 0
        self._changed = threading.Condition()
        self._jobs: deque[tuple[str, Config]] = deque()
        self._events: deque[tuple[str, Event] | BaseException | None] = deque()
        self._decisions: dict[str, bool] = {}
        self._is_taking = False

    def give(self, key: str, config: Config) -> None:
        """Hand a training to Tune."""
        with self._changed:
            self._jobs.append((key, config))
            self.has_room = False
            self._changed.notify_all()

    def take(self, often: Callable[[], None]) -> tuple[str, Event] | None:
        """Wait for the next event, or for room, and call `often` every second.

        Raises:
            BaseException: what ended Tune's loop, or what `often` raised.
        """
        with self._changed:
            self._is_taking = True
            self._changed.notify_all()
            while not self._changed.wait_for(lambda: self._events, _LOOK_S):
                often()
            self._is_taking = False
            event = self._events.popleft()
        if isinstance(event, BaseException):
            raise event
        return event

    def decide(self, key: str, continues: bool) -> None:
        """Answer `ask`."""
        with self._changed:
            self._decisions[key] = continues
            self._changed.notify_all()

    def leave(self, *, abandon: bool) -> None:
        """Let Tune's loop end when its trials have, or at once."""
        with self._changed:
            self.leaving, self.abandoned = True, abandon
            self._changed.notify_all()

    def tell(self, event: tuple[str, Event] | BaseException | None) -> None:
        """Pass an event on; return when the search waits for the next one."""
        with self._changed:
            if not self.leaving:
                self._events.append(event)
                self._changed.notify_all()
                self._changed.wait_for(lambda: self.leaving or (self._is_taking and not self._events))

    def ask(self, key: str, event: Epoch) -> bool:
        """Pass an epoch on, and return whether the training continues."""
        with self._changed:
            self._events.append((key, event))
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.leaving or key in self._decisions)
            return self._decisions.pop(key, True)

    def next_job(self, *, is_idle: bool) -> tuple[str, Config] | None:
        """The next training, if there is one; an idle loop waits a little for it."""
        with self._changed:
            if not self._jobs and not self.has_room:
                self.has_room = True
                self.tell(None)
            if is_idle:
                self._changed.wait_for(lambda: self._jobs or self.leaving, _IDLE_S)
            return self._jobs.popleft() if self._jobs and not self.leaving else None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune stores its searcher, scheduler and callbacks, but nobody restores them."""
        return {}


class JobSearcher(Searcher):
    """Gives Tune the trainings of a search as trials.

    Args:
        exchange: where they come from.
        resources: those of a trial, by its configuration.
        room: the number of trials for which the cluster has resources.
    """

    def __init__(
        self, exchange: Exchange, resources: Callable[[Config], dict[str, float]], room: Callable[[], int]
    ) -> None:
        super().__init__(metric="cost", mode="min")
        self._exchange, self._resources, self._room = exchange, resources, room
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """See Ray's `Searcher`."""
        if self._exchange.leaving:
            return Searcher.FINISHED
        if len(self._running) >= self._room():
            return None
        job = self._exchange.next_job(is_idle=not self._running)
        if job is None:
            return Searcher.FINISHED if self._exchange.leaving else None
        key, config = job
        self._running.add(trial_id)
        return {**config_to_dict(config), KEY: key, RESOURCES: self._resources(config)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See Ray's `Searcher`."""
        self._running.discard(trial_id)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the study is the state."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyScheduler(FIFOScheduler):
    """Asks the search after each epoch whether a trial goes on, and tells it how trials end."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in Ray
        self._exchange = exchange
        self._last: dict[str, Event] = {}
        self._kept: Counter[Any] = Counter()  # actors that Tune keeps for us, by resources

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Keep all idle actors between the stages of a search; Tune would keep one, and start the others anew.

        If trials need different resources, idle actors would occupy those of other trials, so Tune's own rule holds.
        """
        cache = getattr(tune_controller, "_tune_controller", tune_controller)._actor_cache
        resources = trial.placement_group_factory
        if self._kept and resources not in self._kept:
            for other, count in self._kept.items():
                cache.decrease_max(other, count)
            self._kept = Counter(dict.fromkeys(self._kept, 0))
        elif all(self._kept.values()):
            self._kept[resources] += 1
            cache.increase_max(resources)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See Ray's `TrialScheduler`."""
        event = event_of(result)
        if isinstance(event, Failed | Lost | Blocked):
            self._last[trial.trial_id] = event  # its next step raises
        elif isinstance(event, Epoch) and not self._exchange.ask(trial.config[KEY], event):
            with contextlib.suppress(ray.exceptions.RayError):  # lost, which releases everything as well
                ray.get(trial.temporary_state.ray_actor.release.remote())
            return str(FIFOScheduler.STOP)
        return str(FIFOScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """See Ray's `TrialScheduler`."""
        event = event_of(result)
        self._exchange.tell((trial.config[KEY], event if isinstance(event, Ended) else Stopped()))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """See Ray's `TrialScheduler`."""
        event = self._last.pop(trial.trial_id, None)
        if event is None:
            event = Lost(last_line(RuntimeError(trial.get_error() or "")))
        self._exchange.tell((trial.config[KEY], event))

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LeaveWithSearch(Callback):
    """Ends Tune's loop when the search is abandoned."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """See Ray's `Callback`."""
        self._exchange.trials = trials
        states = [trial.status for trial in trials]
        self._exchange.num_waiting = 0 if Trial.RUNNING in states else states.count(Trial.PENDING)
        # A trial that waits for resources would start when the others have stopped.
        if self._exchange.abandoned or (self._exchange.leaving and self._exchange.num_waiting):
            raise AbandonedError

    def __getstate__(self) -> dict[str, Any]:
        return {}

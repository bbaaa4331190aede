"""What Ray Tune runs: an actor that trains one configuration after another and reports every epoch."""

import contextlib
import json
import os
import queue
from typing import Any, Protocol

import ray
import ray.train
import ray.tune
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from vadv_dist.config import Config, config_from_dict
from vadv_dist.launch.driver_notes import DriverNotes
from vadv_dist.launch.ray_run import GROUP, placement_group_of
from vadv_dist.launch.stop_actor import hearing
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import RunResult
from vadv_dist.runtime.garbage_collection import collect_rarely
from vadv_dist.runtime.ray_errors import why_lost
from vadv_dist.tuning.events import Blocked, Ended, Epoch, Event, Failed, Lost, Stopped, epoch_of, failure_of
from vadv_dist.tuning.session import TrainingSession

# Keys of a trial's configuration besides the sections of the run.
KEY, RESOURCES = "trial", "resources"
_LOCK_WAIT_S = 120.0
# Not in the trial's placement group: Ray Train makes one for the workers.
_OUTSIDE: Any = PlacementGroupSchedulingStrategy(placement_group=None)  # type: ignore[arg-type]  # as Ray's docs do


class TrialFailedError(Exception):
    """Tells Tune that a trial failed by itself."""


class Session(Protocol):
    """Trains one configuration at a time; `begin` and `decide` wait for the next event."""

    def begin(self, config: Config) -> Event:
        """Start or resume a training."""
        ...

    def decide(self, continues: bool) -> Event:
        """Whether the training continues after an `Epoch`."""
        ...


class TrialActor(ray.tune.Trainable):
    """A trial of Tune; when it has ended, the actor takes the next one, with its imports done (`reuse_actors`).

    The training's state is in its run folder, so Tune saves and restores nothing.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> Any:
        """See Ray's `Trainable`."""
        return ray.tune.PlacementGroupFactory([config[RESOURCES]])

    def setup(self, config: dict[str, Any], folder: str = "", stop: Any = None, notes: str = "") -> None:
        """See Ray's `Trainable`.

        Args:
            config: the sections of a run, and `KEY` and `RESOURCES`.
            folder: the search's working directory, to which paths of a configuration are relative.
            stop: the flag that asks trainings to save a checkpoint and stop.
            notes: begins the keys of the trials' `DriverNotes`.
        """
        collect_rarely()
        import torch

        from vadv_dist.engines.allocator import use_one_heap

        use_one_heap()
        torch.set_num_threads(max(1, int(config[RESOURCES]["CPU"])))
        self._folder = folder
        self._hears = contextlib.ExitStack()
        self._here = TrainingSession(self._hears.enter_context(hearing(stop)))
        self._distributed = DistributedSession(stop)
        self._notes = notes
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """See Ray's `Trainable`."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        if os.path.isdir(self._folder):
            os.chdir(self._folder)
        sections = {name: section for name, section in config.items() if name not in (KEY, RESOURCES)}
        self._config = config_from_dict(sections)
        self._distributed.notes = self._notes + config[KEY]
        self._session: Session = self._distributed if self._config.trainer.workers else self._here
        self._event: Event | None = None

    def step(self) -> dict[str, Any]:
        """Train until the next event."""
        if isinstance(self._event, Failed):  # already reported as a result, which keeps its kind
            raise TrialFailedError(f"{self._event.kind}: {self._event.message}")
        if isinstance(self._event, Lost):
            raise TrialFailedError(f"lost: {self._event.reason}")
        if isinstance(self._event, Blocked):
            raise TrialFailedError(self._event.message)
        waits = isinstance(self._event, Epoch)
        self._event = self._session.decide(True) if waits else self._session.begin(self._config)
        return values_of(self._event)

    def release(self) -> None:
        """Stop a training that waits after an epoch; its memory and workers are free when this returns."""
        if isinstance(self._event, Epoch):
            self._event = self._session.decide(False)

    def cleanup(self) -> None:
        """See Ray's `Trainable`."""
        self.release()
        self._distributed.end()
        self._hears.close()


def values_of(event: Event) -> dict[str, Any]:
    """An event as a result of Tune, which has `cost` always."""
    if isinstance(event, Epoch):
        return {**event.metrics, "epoch": event.epoch, "cost": event.cost}
    if isinstance(event, Ended):
        return {"cost": event.result.cost, "result": json.dumps(event.result.to_json()), "done": True}
    if isinstance(event, Failed):
        return {"cost": float("nan"), "failure": event.kind, "message": event.message}
    if isinstance(event, Blocked):
        return {"cost": float("nan"), "blocked": event.message}
    lost = event if isinstance(event, Lost) else Lost("stopped")
    return {"cost": float("nan"), "lost": lost.reason, "counts": lost.counts}


def event_of(values: dict[str, Any]) -> Event | None:
    """The event of a result of Tune; None if it has none."""
    if "result" in values:
        return Ended(RunResult.from_json(json.loads(values["result"])))
    if "failure" in values:
        return Failed(values["failure"], values["message"])
    if "blocked" in values:
        return Blocked(values["blocked"])
    if "lost" in values:
        return Lost(values["lost"], values["counts"])
    return Epoch(values["epoch"], values["cost"]) if "epoch" in values else None


class DistributedSession:
    """Trains with Ray Train workers of its own; see `Session`.

    The workers do not wait for decisions, so a training is stopped a little after the deciding epoch. Their driver is a
    process of its own: Ray stops the workers of a driver that is killed, whatever they do.

    Args:
        stop: the flag that asks the workers to stop.

    Attributes:
        notes: key of the `DriverNotes` of the next training.
    """

    notes = ""

    def __init__(self, stop: Any) -> None:
        self._stop = stop
        self._driver: Any = None  # runs one training after another

    def begin(self, config: Config) -> Event:
        """See `Session`."""
        self._folder = RunFolder.of(config)
        if self._driver is None:
            remote: Any = ray.remote(RunActor)
            # Two calls wait: `train` for its workers, and `next_event`.
            options = {"num_cpus": 0, "max_concurrency": 3, "scheduling_strategy": _OUTSIDE}
            self._driver = remote.options(**options).remote(os.getcwd())
        self._driver.train.remote(config, self._stop, self.notes)
        return self._next()

    def decide(self, continues: bool) -> Event:
        """See `Session`."""
        if continues:
            return self._next()
        self.end()
        return Stopped()

    def end(self) -> None:
        """Kill the driver, and release the resources of its workers."""
        if self._driver is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._driver)
            remove_workers(self._folder)
            self._driver = None

    def _next(self) -> Event:
        try:
            event: Event = ray.get(self._driver.next_event.remote())
        except ray.exceptions.RayActorError as error:
            event = Lost(why_lost([error]))
        if isinstance(event, Lost):
            self.end()  # its Ray Train may wait for room, and would start workers beside those of the next try
        return event


def remove_workers(folder: RunFolder) -> None:
    """Release the resources of a run's workers; Ray Train's own clean-up waits forever without a dashboard."""
    with contextlib.suppress(Exception):
        group = (folder.root / ".ray" / GROUP).read_text(encoding="utf-8")
        remove_placement_group(placement_group_of(group))


class EpochReports(ray.train.UserCallback):
    """Passes on what the workers report to Ray Train.

    Ray's own TuneReportCallback does the same for trials that are functions, whose processes cannot be reused.

    Args:
        driver: the `RunActor`.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """See Ray's `UserCallback`."""
        ray.get(self._driver.report.remote(dict(metrics[0])))


class RunActor:
    """The driver of Ray Train runs."""

    def __init__(self, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def next_event(self) -> Event:
        """Wait for an epoch, or the end."""
        return self._events.get()

    def report(self, metrics: dict[str, Any]) -> None:
        """Take the metrics of an epoch."""
        self._events.put(epoch_of(metrics))

    def train(self, config: Config, stop: Any, notes: str) -> None:
        """Train to the end; a failure is an event, and why the workers wait or are restarted is a note."""
        from vadv_dist.launch.driver import train
        from vadv_dist.runtime.terminal import console

        reports, driver = EpochReports(ray.get_runtime_context().current_actor), DriverNotes(notes)

        def notify(text: str) -> None:
            driver.write("line", text=text)

        try:
            # The actor of a search that was killed may keep running for some seconds.
            with RunFolder.of(config).lock(wait_s=_LOCK_WAIT_S):
                pass
            quiet = console(stderr=True, quiet=True)
            event: Event = Ended(train(config, quiet, callbacks=[reports], stop=stop, notify=notify))
        except BaseException as error:
            event = failure_of(error)
        self._events.put(event)

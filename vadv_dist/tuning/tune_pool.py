"""A pool whose trainings are trials of one Ray Tune `Tuner`: on a share of a device, or with Ray Train workers."""

import contextlib
import dataclasses
import logging
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import MachineError, NoticedError, UserError
from vadv_dist.launch.cluster import (
    SAY_EVERY_S,
    cluster_resource,
    is_busy,
    is_ours,
    lacks,
    node_leaves,
    ray_session,
    staying_nodes,
)
from vadv_dist.launch.driver_notes import DriverNotes
from vadv_dist.launch.room import count_fitting
from vadv_dist.launch.shared_folder import require_shared_by_nodes
from vadv_dist.launch.stop_actor import stop_flag
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runtime.ray_errors import last_line
from vadv_dist.runtime.signals import is_termination, termination
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import location, scratch_folder
from vadv_dist.tuning.events import Epoch, Event, Lost
from vadv_dist.tuning.pools import GRACE_SHARE

# How often the cluster is asked for its nodes, and what happens is looked at; how long Tune may take to stop its
# actors.
_NODES_S, _NOTICE_S, _LEAVING_S, _KILLED_S = 5.0, 2.0, 30.0, 10.0
# Without a limit, Tune would start one actor after another.
_MANY = 1 << 16


class TunePool:
    """Runs as many trainings as the cluster has room for, and one more that waits, so that a cluster can grow.

    Tune's loop runs in a thread: in the main thread, it would handle Ctrl-C itself.

    Args:
        config: the run that is varied.
        search: settings, with the maximum number of concurrent trials and the resources of each.
        callbacks: Tune's callbacks besides those of `telemetry.track`.
        on_results: called at the end with Tune's `ResultGrid`.
        say: prints a line when trials wait for room, or the workers of one do, leave a node, hang or are restarted.
    """

    def __init__(
        self,
        config: Config,
        search: SearchConfig,
        *,
        callbacks: Sequence[Any] = (),
        on_results: Callable[[Any], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._config, self._search = config, search
        self._callbacks, self._on_results, self._say = list(callbacks), on_results, say
        self._thread: threading.Thread | None = None
        self._running: dict[str, Config] = {}
        self._known: tuple[float, int] | None = None  # when the cluster was asked, and its room
        self._mark, self._notes = f"trial-{uuid.uuid4().hex}-", dict[str, DriverNotes]()
        self._look_at_s = 0.0
        self._waiting_since_s: float | None = None
        self._say_at_s = SAY_EVERY_S
        self._results: Any = None

    def __enter__(self) -> Self:
        """Connect to the configured cluster, or start one on this machine.

        Raises:
            UserError: it has too few resources for a trial.
        """
        trainer, search = self._config.trainer, self._search
        if trainer.workers == 0:
            # `ray_session` does not know shares of GPUs, which are checked below.
            workers = search.concurrent or 1
            trainer = dataclasses.replace(
                trainer, num_workers=workers, cpus_per_worker=search.cpus_per_trial, use_gpu=False
            )
        with contextlib.ExitStack() as stack:
            self._worker = stack.enter_context(ray_session(trainer, self._say))
            require_shared_by_nodes(location(self._config.run.storage))
            self._needs = self._resources_of(self._config)
            if self._room() < 1:
                have = f"{counted(cluster_resource('CPU'), 'CPU')} and {counted(cluster_resource('GPU'), 'GPU')}"
                need = f"{counted(self._needs['CPU'], 'CPU')} and {counted(self._needs['GPU'], 'GPU')}"
                raise UserError(
                    f"The Ray cluster has {have}, but a trial needs {need}, plus one CPU for the search. Lower "
                    "search.cpus_per_trial or search.gpus_per_trial."
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from vadv_dist.tuning.tune_adapters import Exchange
                from vadv_dist.tuning.tune_trackers import trackers
            track = trackers(self._config.telemetry.track, location(self._config.run.storage))
            self._callbacks = [*track, *self._callbacks]
            stack.enter_context(_silent("ray.tune"))
            self._scratch = stack.enter_context(scratch_folder())
            self._exchange = Exchange()
            self._stop = stop_flag()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End Tune's loop and its actors; a later search resumes running trials from their checkpoints.

        On SIGTERM or a notice, running trials save a checkpoint first.
        """
        with self._stack:
            if self._thread is None:
                return
            is_signal = isinstance(error, KeyboardInterrupt) and is_termination(error)
            if error is None or is_signal or isinstance(error, NoticedError):
                self._exchange.leave(abandon=False)
                if error is not None:
                    self._stop.ask.remote(termination()[0] if is_signal else "preemption")
                self._thread.join(_LEAVING_S if error is None else self._config.trainer.grace_s * GRACE_SHARE)
            if self._thread.is_alive():
                self._abandon()
        if self._results is not None and self._on_results is not None:
            self._on_results(self._results)

    def _abandon(self) -> None:
        """End Tune's loop at once, with what runs on the cluster."""
        import ray

        from vadv_dist.tuning.trial_actor import remove_workers

        self._exchange.leave(abandon=True)
        for trial in self._exchange.trials:
            if (actor := trial.temporary_state.ray_actor) is not None:
                with contextlib.suppress(Exception):
                    ray.kill(actor)
        for config in self._running.values():
            if config.trainer.workers:
                remove_workers(RunFolder.of(config))
        assert self._thread is not None
        self._thread.join(_KILLED_S)

    @property
    def slots(self) -> int:
        """Trainings that run, and one more if Tune waits for one."""
        return len(self._running) + (self._thread is None or self._exchange.has_room)

    def start(self, key: str, config: Config) -> None:
        """See `Pool`."""
        self._running[key] = config
        self._notes[key] = DriverNotes(self._mark + key)
        self._exchange.give(key, config)
        if self._thread is None:
            self._thread = threading.Thread(target=self._fit, name="vadv-tune", daemon=True)
            self._thread.start()

    def next(self) -> tuple[str, Event] | None:
        """See `Pool`.

        Raises:
            MachineError: Tune's loop has ended.
            NoticedError: this node leaves the cluster.
        """
        self._look()
        found = self._exchange.take(self._look)
        if found is not None and not isinstance(found[1], Epoch):
            key = found[0]
            self._read(key)
            del self._running[key], self._notes[key]
        return found

    def _look(self) -> None:
        """Every two seconds, read notes of trials, and see whether trials wait, and whether this node leaves."""
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + _NOTICE_S
        for key in self._notes:
            self._read(key)
        self._wait()
        if node_leaves():
            raise NoticedError(
                "This node leaves the Ray cluster. Completed epochs are saved, and running trials were asked to save a "
                "checkpoint; run the same command again, on another node, to resume."
            )

    def _read(self, key: str) -> None:
        for note in self._notes[key].read():
            self._say(f"{key}: {note['text']}")

    def _wait(self) -> None:
        """While trials wait for resources and none runs, say every ten seconds what is missing."""
        if not (waiting := self._exchange.num_waiting):
            self._waiting_since_s = None
            return
        if self._waiting_since_s is None:
            self._waiting_since_s, self._say_at_s = time.monotonic(), SAY_EVERY_S
        waited_s = time.monotonic() - self._waiting_since_s
        if waited_s < self._say_at_s:
            return
        self._say_at_s = waited_s + SAY_EVERY_S
        if missing := lacks(self._needs, 1, unit="trial"):
            self._say(f"waiting for the Ray cluster to have room again ({waited_s:.0f} s): {missing}")
        elif busy := is_busy(self._needs, 1, groups=waiting, unit="trial"):
            self._say(f"waiting for the Ray cluster ({waited_s:.0f} s), which is busy: {busy}")

    def decide(self, key: str, continues: bool) -> None:
        """See `Pool`."""
        self._exchange.decide(key, continues)

    def _fit(self) -> None:
        """Run a Tuner until the search ends; if Tune's loop fails, report its trials as lost and start another."""
        while self._results is None and not self._exchange.leaving:
            try:
                self._results = self._tuner().fit()
            except BaseException as error:
                if self._exchange.leaving:
                    return
                reason = f"Ray Tune's loop ended: {last_line(error)}"
                if not self._running:
                    self._exchange.tell(MachineError(f"{reason}. Run the same command again to resume the search."))
                    return
                for key in list(self._running):
                    self._exchange.tell((key, Lost(reason)))

    def _tuner(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ray import tune

            from vadv_dist.tuning.trial_actor import KEY, TrialActor
            from vadv_dist.tuning.tune_adapters import JobSearcher, LeaveWithSearch, StudyScheduler

        # Tune would write every result to three files, and print a table at the start however quiet it is to be.
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        exchange = self._exchange
        trainable = tune.with_parameters(TrialActor, folder=os.getcwd(), stop=self._stop, notes=self._mark)
        trainable.__qualname__ = TrialActor.__qualname__  # Ray's title of its processes
        return tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric="cost",
                mode="min",
                search_alg=JobSearcher(exchange, self._resources_of, self._limit),
                scheduler=StudyScheduler(exchange),
                num_samples=-1,
                max_concurrent_trials=self._search.concurrent or _MANY,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config[KEY],
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(self._scratch),
                verbose=0,
                # Trainings write their own checkpoints.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[LeaveWithSearch(exchange), *self._callbacks],
            ),
        )

    def _resources_of(self, config: Config) -> dict[str, float]:
        """What a trial's actor needs; with workers, one CPU for their driver."""
        if config.trainer.workers:
            return {"CPU": 1.0, "GPU": 0.0}
        gpus, use_gpu = self._search.gpus_per_trial, config.trainer.use_gpu
        if use_gpu is False:
            gpus = 0.0
        elif gpus is None:
            gpus = 1.0 if use_gpu is True or cluster_resource("GPU") else 0.0
        return {"CPU": float(self._search.cpus_per_trial), "GPU": gpus}

    def _limit(self) -> int:
        """Trials that may exist: one more than there is room for makes an autoscaling cluster grow."""
        now = time.monotonic()
        if self._known is None or now - self._known[0] > _NODES_S:
            self._known = now, self._room()
        return self._known[1] + (not is_ours())

    def _room(self) -> int:
        """Trials for which the cluster has resources now, used or not."""
        cpus, nodes = cluster_resource("CPU"), staying_nodes()
        workers = self._config.trainer.workers
        if workers:
            cpus_of_trial = self._worker["CPU"] * workers + self._needs["CPU"]
            return min(int(cpus / cpus_of_trial), count_fitting(nodes, self._worker) // workers)
        if is_ours() and self._search.concurrent is None:
            # A cluster that was started here pretends to have two CPUs more than the machine.
            nodes = [{**node, "CPU": os.cpu_count() or 1} for node in nodes]
            return count_fitting(nodes, self._needs)
        return min(count_fitting(nodes, self._needs), int(cpus - 1) // self._search.cpus_per_trial)


@contextlib.contextmanager
def _silent(logger: str) -> Iterator[None]:
    """Keep a library from printing what the search reports itself."""
    found = logging.getLogger(logger)
    level = found.level
    found.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        found.setLevel(level)

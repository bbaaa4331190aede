"""A run as Ray Train workers, which are restarted when one is lost, hangs, or has to leave its node."""

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from vadv_dist.config import Config, config_to_dict
from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.engines.allocator import THREAD_ENVIRONMENT
from vadv_dist.engines.faults import is_lost_peer
from vadv_dist.errors import MachineError, NoticedError, PreemptedError, RoomError, StoppedError, VadvError
from vadv_dist.launch.cluster import SAY_EVERY_S, is_busy, lacks, node_leaves, ray_session
from vadv_dist.launch.driver_notes import DriverNotes
from vadv_dist.launch.room import Resources
from vadv_dist.launch.shared_folder import leave_mark, require_shared
from vadv_dist.launch.stop_actor import ask_to_stop, stop_flag
from vadv_dist.launch.worker import train_in_ray
from vadv_dist.runs.folder import FAILURES, RunFolder
from vadv_dist.runtime.ray_errors import last_line, own_error, why_lost
from vadv_dist.runtime.signals import StopRequest
from vadv_dist.storage import Location, remove_tree, scratch_folder, store_settings, write_text

# In the folder of notes: id of the workers' placement group, so that it can be removed from outside.
GROUP = "placement-group"
_POLL_S, _NOTES_S = 0.5, 2.0
# Longer than the slowest save: ranks wait for a checkpoint's parts for 10 minutes, and a request to an object store is
# tried for about as long. Hangs are found much earlier (`launch/hangs.py`).
_COLLECTIVE_S = 2 * 3600
# Seconds for which a run whose workers were lost waits for a cluster that is now too small, if
# `trainer.wait_for_room_s` is not longer.
_ROOM_LOST_S = 600.0
# Between two looks whether the number of workers should change.
_RESIZE_S = 30.0
# Ray's defaults are 5 s between two looks for nodes that leave, and no look at NCCL.
_SETTINGS = {"RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}
_NCCL_SETTINGS = {"RAY_TRAIN_ENABLE_NCCL_HANG_DETECTOR": "1", "RAY_TRAIN_NCCL_RAS_ACTION": "fail"}
# A node that has just died still counts in Ray Train's choice of a number of workers; the next try counts again.
_ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}
_NCCL_TIMEOUT = "RAY_TRAIN_NCCL_RAS_CONFIRM_DURATION_S"

Say = Callable[[str], None]


def train_with_ray(
    config: Config,
    folder: RunFolder,
    say: Say,
    trial: str,
    request: StopRequest,
    callbacks: Sequence[Any],
    stop: Any,
) -> None:
    """Run the workers; if they are restarted, they resume from the last checkpoint.

    When `request` asks to stop, they stop after their current step. `say` is called with a line when they wait for
    room, leave a node, hang, or are restarted.

    Raises:
        VadvError: an error that a worker raised.
        MachineError: workers were lost too often.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

        from vadv_dist.launch.controller_watch import ControllerWatch

    workers, trainer_config = config.trainer.workers, config.trainer
    # Notes of the workers for the driver; Ray Train's own records go to a scratch folder.
    notes = folder.root / ".ray"
    _remove(notes)
    mark = leave_mark(notes)
    watches: list[Any] = [*callbacks, ControllerWatch(mark, trainer_config.hang_timeout_s)]
    session = ray_session(trainer_config, say, may_lack_room=stop is not None)
    with scratch_folder() as scratch, session as worker:
        use_gpu = "GPU" in worker
        _set_defaults(trainer_config, use_nccl=use_gpu and workers > 1)
        flag = stop or stop_flag()
        # mypy sees the class of Ray Train's first version.
        scaling = ray.train.ScalingConfig(  # type: ignore[call-arg]
            num_workers=trainer_config.num_workers,  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker=worker,
            elastic_resize_monitor_interval_s=_RESIZE_S,
        )
        trainer = TorchTrainer(
            train_in_ray,  # type: ignore[arg-type]  # Ray passes on what it returns
            train_loop_config={
                "config": config_to_dict(config),
                "use_gpu": use_gpu,
                "folder": os.getcwd(),
                "trial": trial,
                "mark": mark,
                "stop": flag,
            },
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=_COLLECTIVE_S),
            scaling_config=scaling,
            run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees the class of Ray Train's first version
                name="workers",
                storage_path=str(scratch),
                failure_config=ray.train.FailureConfig(max_failures=trainer_config.max_failures),
                worker_runtime_env={"env_vars": THREAD_ENVIRONMENT | store_settings()},
                callbacks=watches,
            ),
        )
        request.is_working = True
        try:
            following = _Following(config, worker, say, request, flag, mark, may_leave=stop is None)
            fit(trainer, following.look)
        except WorkerGroupError as error:
            failures = error.worker_failures.values()
            for failure in failures:
                if (ours := own_error(failure)) is not None:
                    raise ours from None
            # Broken connections to a lost worker are a consequence, not the cause.
            reason = why_lost(failure for failure in failures if not is_lost_peer(failure)) or "its connection closed"
            raise MachineError(
                f"Workers were lost more than {trainer_config.max_failures} times, the last time because "
                f"{reason}. Checkpoints in {folder.checkpoints} are complete: run the same command again to resume, "
                "with a larger trainer.max_failures if losses are expected. Tracebacks of the workers, if any, are in "
                f"{folder.root / FAILURES}."
            ) from error
        except TrainingFailedError as error:
            if (ours := own_error(error)) is not None:
                raise ours from None
            raise MachineError(
                f"Ray Train could not run the workers: {last_line(error)}. Checkpoints are complete: run the same "
                "command again to resume."
            ) from error
        require_shared(folder.root, mark)
    _remove(notes)


def _set_defaults(trainer: TrainerConfig, *, use_nccl: bool) -> None:
    """Settings of Ray Train that have no argument; what is set in the environment stays."""
    settings = dict(_SETTINGS)
    if trainer.min_workers < trainer.workers:
        settings |= _ELASTIC_SETTINGS
    if use_nccl and trainer.hang_timeout_s is not None:
        settings |= _NCCL_SETTINGS | {_NCCL_TIMEOUT: str(trainer.hang_timeout_s)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def fit(trainer: Any, often: Callable[[], None]) -> None:
    """Run a Ray trainer in a thread: in the main thread it would handle Ctrl-C itself and exit without a message.

    After Ctrl-C, Ray stops the workers when this process's session ends.

    Args:
        trainer: the trainer.
        often: called twice a second in this thread.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="vadv-fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)  # returns regularly so that signals are handled
        often()
    if errors:
        raise errors[0]


class _Following:
    """The driver while Ray Train runs the workers.

    Args:
        config: the run.
        worker: the resources of a worker.
        say: prints a line.
        request: whether the workers should stop.
        flag: of `stop_actor`.
        key: of the controller's `DriverNotes`.
        may_leave: whether the run ends when this node leaves; a search decides for its trials itself.
    """

    def __init__(
        self, config: Config, worker: Resources, say: Say, request: StopRequest, flag: Any, key: str, *, may_leave: bool
    ) -> None:
        self._worker, self._folder = worker, RunFolder.of(config)
        self._workers = config.trainer.min_workers
        self._room_s = max(config.trainer.wait_for_room_s, _ROOM_LOST_S)
        self._say, self._request, self._flag = say, request, flag
        self._may_leave = may_leave
        self._notes = DriverNotes(key)
        self._has_asked, self._look_at_s = False, 0.0
        # When the workers were last asked for, until they run.
        self._waiting_since_s: float | None = time.monotonic()
        self._say_at_s = SAY_EVERY_S
        self._cause = self._group = ""

    def look(self) -> None:
        """Read the controller's notes every two seconds, and pass on the request to stop; called often.

        Raises:
            RoomError: the cluster has been too small for the workers for too long.
            PreemptedError: so it has since a node was taken away.
            StoppedError: the run is asked to stop while no worker trains.
        """
        if time.monotonic() >= self._look_at_s:
            self._look_at_s = time.monotonic() + _NOTES_S
            self.read()
        if self._request.asked:
            self._stop()

    def _stop(self) -> None:
        """Pass on the request to stop, once; workers that do not run have nothing to finish."""
        if not self._has_asked:
            self.read()  # whether they run
        is_waiting = self._waiting_since_s is not None
        if not is_waiting and not self._has_asked:
            self._has_asked = True
            is_waiting = not ask_to_stop(self._flag, self._request.cause)
        if is_waiting:
            kind = NoticedError if self._request.is_notice else StoppedError
            raise kind(
                f"{self._request.cause} arrived while the workers were starting. Run the same command again to resume "
                f"{self._folder.root}."
            )

    def read(self) -> None:
        """Read the controller's notes, and see whether this node leaves."""
        for note in self._notes.read():
            self._take(note)
        if self._may_leave and not self._request.asked and node_leaves():
            self._say("this node leaves the cluster: finishing the step and writing a checkpoint")
            self._request.ask("preemption", is_notice=True)
        self._wait()

    def _wait(self) -> None:
        """While the workers do not run, say every ten seconds what is missing."""
        if self._waiting_since_s is None:
            return
        waited_s = time.monotonic() - self._waiting_since_s
        if waited_s < self._say_at_s:
            return
        self._say_at_s = waited_s + SAY_EVERY_S
        if not (missing := lacks(self._worker, self._workers)):
            if busy := is_busy(self._worker, self._workers):
                self._say(f"waiting for the Ray cluster ({waited_s:.0f} s), which is busy: {busy}")
            return
        so_far = f"{waited_s:.0f} of {self._room_s:.0f} s"
        self._say(f"waiting for the Ray cluster to have room again ({so_far}): {missing}")
        if waited_s > self._room_s:
            self._withdraw()
            kind = PreemptedError if self._cause == "preemption" else RoomError
            raise kind(
                f"The Ray cluster has been too small for the workers for {waited_s:.0f} s: {missing}. Checkpoints are "
                "complete: run the same command again to resume, or with a lower trainer.num_workers."
            )

    def _withdraw(self) -> None:
        """Have Ray Train ask for no more workers, and remove the placement group for which it waits."""
        from ray.util.placement_group import remove_placement_group

        self._notes.give_up()
        for note in self._notes.read():
            self._take(note)
        if self._group:
            remove_placement_group(placement_group_of(self._group))

    def _take(self, note: dict[str, Any]) -> None:
        if note["kind"] == "hang":
            name = f"{time.strftime('%Y%m%dT%H%M%S')}-hang.txt"
            with contextlib.suppress(VadvError, OSError):
                write_text(self._folder.root / FAILURES / name, note["stacks"])
            where = self._folder.root / FAILURES / name
            self._say(f"{note['text']}. The workers are restarted; their stacks are in {where}")
        elif note["kind"] == "preempting":
            left = "" if note["left_s"] is None else f" in {note['left_s']:.0f} s"
            ranks = ", ".join(map(str, note["ranks"]))
            self._say(f"the node of ranks {ranks} leaves the cluster{left}: finishing the step, writing a checkpoint")
        elif note["kind"] == "restarting":
            self._cause = note["cause"]
            self._say(f"restarting the workers: {note['why']}")
            self._waiting_since_s, self._say_at_s = time.monotonic(), SAY_EVERY_S
        elif note["kind"] == "group":
            self._group = note["id"]
            with contextlib.suppress(VadvError, OSError):
                write_text(self._folder.root / ".ray" / GROUP, self._group)
        elif note["kind"] == "running":
            self._waiting_since_s = None


def placement_group_of(group: str) -> Any:
    """The placement group with an id in hexadecimal digits."""
    import ray
    from ray.util.placement_group import PlacementGroup

    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group)))


def _remove(folder: Location) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove_tree(folder)

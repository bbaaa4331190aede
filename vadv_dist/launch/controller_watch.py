"""What the controller of Ray Train watches over for a run: ranks that hang, nodes that leave, why workers restart.

An instance lives in Ray Train's controller, whose callbacks (a developer's interface of Ray 2.60) it implements.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import (
    PreemptingState,
    ResizingState,
    RestartingState,
    RunningState,
)
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vadv_dist.errors import MachineError, RoomError, UserError, VadvError
from vadv_dist.launch import rank_state, stacks
from vadv_dist.launch.cluster import leaving_nodes
from vadv_dist.launch.driver_notes import DriverNotes
from vadv_dist.launch.hangs import Hang, Heard, find_hang
from vadv_dist.runtime.ray_errors import own_error
from vadv_dist.training.pulse import Beat

# Seconds between two questions to a rank, and for which a rank or a node may take to show stacks.
_ASK_S, _STACKS_S = 5.0, 20.0
# Seconds for which workers may take to stop before their number changes, and between two looks whether they have.
_STOPPING_S, _LOOK_S = 120.0, 0.2
PREEMPTION, HANG, LOST, RESIZE = "preemption", "hang", "lost worker", "resize"


class ControllerWatch(WorkerGroupCallback, ControllerCallback):
    """Watches one run.

    Args:
        key: of its `DriverNotes`.
        hang_timeout_s: `trainer.hang_timeout_s`; None does not look for hangs.
    """

    def __init__(self, key: str, hang_timeout_s: float | None) -> None:
        self._notes = DriverNotes(key)
        self._timeout_s = hang_timeout_s
        self._workers: dict[int, Any] = {}
        self._files: dict[int, Any] = {}
        self._beats: dict[int, Beat] = {}
        self._asked: dict[int, tuple[float, Any]] = {}
        self._ask_at_s = 0.0
        self._cause = ""
        self._hang: Hang | None = None
        self._preemption: Any = None
        self._resizes = False

    def after_controller_start(self, train_run_context: Any) -> None:
        """Have Ray Train leave out nodes that are being drained, and tell the driver of placement groups."""
        counted = ElasticScalingPolicy._count_possible_workers

        def count(policy: Any, reserved_resources: Mapping[str, Any]) -> int:
            leaving = leaving_nodes()
            found: int = counted(policy, {node: has for node, has in reserved_resources.items() if node not in leaving})
            return found

        # It counts them until they are gone, asks for workers on them, waits in vain, and does so again. There is no
        # place for a policy of one's own.
        ElasticScalingPolicy._count_possible_workers = count  # type: ignore[method-assign,assignment]
        created = WorkerGroup._create_placement_group

        def create(workers: Any, *arguments: Any) -> Any:
            if self._notes.has_given_up():
                raise RoomError("The driver does not wait for room any more.")
            handle = created(workers, *arguments)
            self._notes.write("group", id=handle.placement_group.id.hex())
            return handle

        # A group that waits for room stays as long as the driver's process, and nothing else names it.
        WorkerGroup._create_placement_group = create  # type: ignore[method-assign,assignment]

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Have running workers stop with a checkpoint before Ray Train ends them to start another number of them."""
        if not self._resizes:  # the first workers, or after a failure
            return
        self._resizes = False
        for worker in self._workers.values():
            worker.execute_async(rank_state.ask, RESIZE)
        deadline = time.monotonic() + _STOPPING_S
        while time.monotonic() < deadline:
            ended = _results({r: w.execute_async(rank_state.has_ended) for r, w in self._workers.items()})
            if len(ended) < len(self._workers) or all(ended.values()):  # a lost worker has nothing to save
                return
            time.sleep(_LOOK_S)

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Tell the workers why they start."""
        self._workers = {worker.distributed_context.world_rank: worker for worker in worker_group.get_workers()}
        self._beats, self._asked, self._preemption = {}, {}, None
        self._files = {rank: each.execute_async(rank_state.begin, self._cause) for rank, each in self._workers.items()}

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Tell the driver, and ask the workers to stop before their node leaves."""
        if isinstance(current_state, PreemptingState):
            if isinstance(previous_state, RunningState):
                self._preempt(current_state.preemption_info)
        elif isinstance(current_state, RestartingState):
            self._restart(current_state.training_failed_error)
        elif isinstance(current_state, ResizingState):
            self._cause, self._resizes = RESIZE, True
            self._notes.write("restarting", cause=self._cause, why="the number of workers changes")
        elif isinstance(current_state, RunningState) and not isinstance(previous_state, RunningState):
            self._notes.write("running", workers=len(self._workers))

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Look for errors that other workers would meet again, and for a hang.

        Raises:
            ControllerError: a rank's own error, which ends the run: Ray Train does not start workers after it.
            WorkerGroupError: the run hangs; Ray Train starts the workers again.
            PreemptionError: all ranks have stopped for a node that leaves; Ray Train starts them on others.
        """
        statuses = worker_group_status.worker_statuses
        if (error := _final_error(list(worker_group_status.errors.values()))) is not None:
            raise ControllerError(error)
        if self._preemption is not None and worker_group_status.finished and not worker_group_status.errors:
            if all(status.return_value == PREEMPTION for status in statuses.values()):
                raise PreemptionError(self._preemption)
            return
        if self._timeout_s is None or worker_group_status.errors:
            return
        self._ask()
        heard = [self._heard(rank) for rank in self._workers]
        hang = find_hang(heard, self._timeout_s)
        if hang is not None:
            self._end(hang, silent=[one.rank for one in heard if one.silent_s > self._timeout_s])

    def _preempt(self, info: Any) -> None:
        self._preemption = info
        left_s = None if info.deadline_ms is None else max(0.0, info.deadline_ms / 1000 - time.time())
        self._notes.write("preempting", ranks=info.preempted_ranks, nodes=info.preempted_node_ids, left_s=left_s)
        for worker in self._workers.values():
            worker.execute_async(rank_state.ask, PREEMPTION)

    def _restart(self, error: Any) -> None:
        failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else ()
        if self._hang is not None:
            self._cause, why = HANG, self._hang.text
        elif isinstance(error, PreemptionError) or any(_was_preempted(failure) for failure in failures):
            self._cause, why = PREEMPTION, "a node leaves the cluster"
        else:
            self._cause, why = LOST, "a worker was lost"
        self._hang = None
        self._notes.write("restarting", cause=self._cause, why=why)

    def _ask(self) -> None:
        """Take the answers of ranks, and ask those again that have answered."""
        now = time.monotonic()
        for rank, (_, question) in list(self._asked.items()):
            if ray.wait([question], timeout=0)[0]:
                del self._asked[rank]
                with contextlib.suppress(ray.exceptions.RayError):  # a lost worker is Ray Train's to find
                    self._beats[rank] = ray.get(question)
        if now >= self._ask_at_s:
            self._ask_at_s = now + min(_ASK_S, (self._timeout_s or _ASK_S) / 4)
            for rank, worker in self._workers.items():
                if rank not in self._asked:
                    self._asked[rank] = now, worker.execute_async(rank_state.beat)

    def _heard(self, rank: int) -> Heard:
        silent_s = time.monotonic() - self._asked[rank][0] if rank in self._asked else 0.0
        about = self._workers[rank].metadata
        return Heard(rank, f"process {about.pid} on {about.hostname}", self._beats.get(rank), silent_s)

    def _end(self, hang: Hang, silent: Sequence[int]) -> None:
        """Record stacks, kill the ranks that hang, and have Ray Train start the workers again."""
        self._hang = hang
        answering = {
            rank: worker.execute_async(stacks.own_stacks)
            for rank, worker in self._workers.items()
            if rank not in silent
        }
        found = _results(answering) | _results(self._on_nodes(silent, _autopsy))
        shown = "\n\n".join(f"Rank {rank}\n{found.get(rank, 'no answer')}" for rank in sorted(self._workers))
        self._notes.write("hang", text=hang.text, stacks=f"{hang.text}\n\n{shown}\n")
        _results(self._on_nodes(hang.ranks, _kill))
        error = MachineError(f"{hang.text}. Checkpoints are complete: run the same command again to resume.")
        raise WorkerGroupError(hang.text, dict.fromkeys(hang.ranks, error))

    def _on_nodes(self, ranks: Iterable[int], function: Any) -> dict[int, Any]:
        """Call a function for each rank on its node, with its process and the file of its stacks."""
        task: Any = ray.remote(function)
        started = {}
        for rank in ranks:
            about = self._workers[rank].metadata
            there = NodeAffinitySchedulingStrategy(about.node_id, soft=False)
            options = task.options(num_cpus=0, scheduling_strategy=there, max_retries=0)
            started[rank] = options.remote(about.pid, self._files[rank])
        return started


def _final_error(errors: Sequence[BaseException]) -> VadvError | None:
    """The error among the ranks' that ends the run.

    A user's mistake always does; a machine's fault does unless it may follow from the loss of another rank.
    """
    ours = [found for error in errors if (found := own_error(error)) is not None]
    mistakes = [error for error in ours if isinstance(error, UserError)]
    return next(iter(mistakes or (ours if len(ours) == len(errors) else [])), None)


def _autopsy(pid: int, file: int) -> str:
    return stacks.stacks_of(pid, file)


def _kill(pid: int, file: int) -> str:
    stacks.kill(pid)
    return ""


def _results(started: Mapping[int, Any]) -> dict[int, Any]:
    """Results of remote calls by rank, without those that fail or take too long."""
    if not started:
        return {}
    done, _ = ray.wait(list(started.values()), num_returns=len(started), timeout=_STACKS_S)
    found = {}
    for rank, call in started.items():
        if call in done:
            with contextlib.suppress(ray.exceptions.RayError):
                found[rank] = ray.get(call)
    return found


def _was_preempted(failure: BaseException) -> bool:
    cause = getattr(failure, "health_check_failure", failure)
    return bool(getattr(cause, "preempted", False))

"""The Ray cluster of a run: an existing one, or one started on this machine."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.errors import RoomError, UserError
from vadv_dist.launch.room import Resources, lacking
from vadv_dist.runtime.ray_connection import connect

# Seconds between two lines while a run waits.
SAY_EVERY_S = 10.0
_LOOK_S = 2.0

_ours = False  # whether this process started the cluster that it is connected to


@contextmanager
def ray_session(
    trainer: TrainerConfig, say: Callable[[str], None] = lambda text: None, *, may_lack_room: bool = False
) -> Iterator[dict[str, float]]:
    """Join the configured Ray cluster, or start one on this machine that is stopped when the context exits.

    Sessions nest: an inner one uses the cluster of the outer one.

    Args:
        trainer: the cluster's address, and number and resources of the workers.
        say: prints a line while the cluster is too small.
        may_lack_room: do not look at the cluster's size: a trial's search has, and the trial waits for what was lost.
    Yields:
        The resources of a worker: CPU and, if workers use one, GPU.
    Raises:
        UserError: the cluster is too small for the workers; Ray would wait forever.
        RoomError: it has not grown within `trainer.wait_for_room_s`.
        MachineError: the cluster cannot be joined.
    """
    global _ours
    import ray

    started_here = False
    workers, cores = trainer.workers, os.cpu_count() or 1
    mine = trainer.cpus_per_worker or max(1, cores // workers)
    if not ray.is_initialized():
        # Two more than the workers need: one for reading windows, one for Ray Train's controller.
        _ours = started_here = connect(max(cores, mine * workers) + 2, given=trainer.ray_address)
    try:
        # Do not claim all cores of a cluster that others may use.
        cpus = mine if _ours or trainer.cpus_per_worker else 1
        if not (_ours or may_lack_room):
            wait_for_room(trainer, resources_of_worker(trainer, cpus, gpus=0), say)
        worker = resources_of_worker(trainer, cpus, gpus=cluster_resource("GPU"))
        if not may_lack_room:
            require_room(trainer, worker, staying_nodes())
        yield worker
    finally:
        if started_here:
            ray.shutdown()
            _ours = False


def resources_of_worker(trainer: TrainerConfig, cpus: int, *, gpus: float) -> dict[str, float]:
    """The resources of a worker: `trainer.use_gpu: auto` takes a GPU for each if the cluster has as many `gpus`."""
    use_gpu = gpus >= trainer.min_workers if trainer.use_gpu == "auto" else trainer.use_gpu
    return {"CPU": float(cpus), **({"GPU": 1.0} if use_gpu else {})}


def wait_for_room(trainer: TrainerConfig, worker: Resources, say: Callable[[str], None]) -> None:
    """Ask an autoscaling cluster for the workers' resources, and wait at most `trainer.wait_for_room_s` for them.

    Every ten seconds a line says what is missing. The request is withdrawn at the end: it would otherwise keep the
    nodes for good.

    Raises:
        RoomError: the cluster has not grown in time.
    """
    began = time.monotonic()
    what = partial(lacks, worker, trainer.min_workers, spare_cpus=1)
    if trainer.wait_for_room_s == 0 or not what():
        return
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=[*[dict(worker)] * trainer.workers, {"CPU": 1.0}])
    say_at_s = 0.0
    try:
        while missing := what():
            waited_s = time.monotonic() - began
            if waited_s > trainer.wait_for_room_s:
                raise RoomError(
                    f"The Ray cluster has not grown in {trainer.wait_for_room_s:g} s (trainer.wait_for_room_s): "
                    f"{missing}. Run the same command again, or wait longer."
                )
            if waited_s >= say_at_s:
                say(f"waiting for the Ray cluster to grow ({waited_s:.0f} s): {missing}")
                say_at_s += SAY_EVERY_S
            time.sleep(min(_LOOK_S, trainer.wait_for_room_s))
    finally:
        request_resources(bundles=[])


def lacks(worker: Resources, workers: int, *, spare_cpus: int = 0, unit: str = "worker") -> str:
    """What the nodes that stay lack for workers, used or not; see `lacking`."""
    return lacking(staying_nodes(), worker, workers, spare_cpus=spare_cpus, unit=unit)


def is_busy(worker: Resources, workers: int, *, groups: int = 1, unit: str = "worker") -> str:
    """What is in use by others so that the workers cannot start; empty if nothing.

    Args:
        worker, workers, unit: see `lacking`.
        groups: the number of placement groups that have asked for them.
    """
    from ray._private.state import available_resources_per_node
    from ray.util import placement_group_table

    if sum(group["state"] == "PENDING" for group in placement_group_table().values()) < groups:
        return ""  # what is not free may be in use by the workers themselves, which are starting
    leaving = leaving_nodes()
    free: dict[str, Resources] = available_resources_per_node()  # type: ignore[no-untyped-call]  # untyped in Ray
    return lacking([has for node, has in free.items() if node not in leaving], worker, workers, unit=unit)


def require_room(trainer: TrainerConfig, worker: Resources, nodes: Sequence[Resources]) -> None:
    """Check that a cluster is large enough for the workers.

    Raises:
        UserError: its nodes lack room for the workers, or one CPU more for reading data.
    """
    if missing := lacking(nodes, worker, trainer.min_workers, spare_cpus=1):
        other = "set trainer.use_gpu to false, " if "GPU" in worker else ""
        raise UserError(
            f"The Ray cluster has {missing}. Lower trainer.num_workers or trainer.cpus_per_worker, {other}or add nodes."
        )


def staying_nodes() -> list[Resources]:
    """The resources, used or not, of each node that is not being drained."""
    import ray

    leaving = leaving_nodes()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # untyped in Ray
    return [node["Resources"] for node in nodes if node["Alive"] and node["NodeID"] not in leaving]


def leaving_nodes() -> Collection[str]:
    """Ids of the nodes that are being drained, so that they will leave the cluster."""
    import ray

    # Ray's public functions show this only to workers, and only of nodes with workers.
    draining: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return draining


def node_leaves() -> bool:
    """Whether the node of this process is being drained."""
    import ray

    return ray.get_runtime_context().get_node_id() in leaving_nodes()


def is_ours() -> bool:
    """Whether this process started the cluster that it uses."""
    return _ours


def cluster_resource(name: str) -> float:
    """Total amount of a resource in the cluster."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # untyped in Ray
    return resources.get(name, 0.0)

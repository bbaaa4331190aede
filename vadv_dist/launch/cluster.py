"""The Ray cluster of a run: an existing one, or one started on this machine."""

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runtime.ray_connection import connect
from vadv_dist.runtime.terminal import counted

# Seconds between two lines while a run waits.
SAY_EVERY_S = 10.0
_LOOK_S = 2.0

_ours = False  # whether this process started the cluster that it is connected to


@contextmanager
def ray_session(trainer: TrainerConfig, say: Callable[[str], None] = lambda text: None) -> Iterator[int]:
    """Join the configured Ray cluster, or start one on this machine that is stopped when the context exits.

    Sessions nest: an inner one uses the cluster of the outer one.

    Args:
        trainer: the cluster's address, and number and CPUs of the workers.
        say: prints a line while the cluster is too small.
    Yields:
        CPUs per worker.
    Raises:
        UserError: the cluster is too small for the workers; Ray would wait forever.
        MachineError: the cluster cannot be joined, or has not grown within `trainer.wait_for_room_s`.
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
        if not _ours:
            wait_for_room(trainer, cpus, say)
        require_room(trainer, cpus, have_cpus=cluster_resource("CPU"), have_gpus=cluster_resource("GPU"))
        yield cpus
    finally:
        if started_here:
            ray.shutdown()
            _ours = False


def wait_for_room(trainer: TrainerConfig, cpus: int, say: Callable[[str], None]) -> None:
    """Ask an autoscaling cluster for the workers' resources, and wait at most `trainer.wait_for_room_s` for them.

    Every ten seconds a line says what is missing. The request is withdrawn at the end: it would otherwise keep the
    nodes for good.

    Raises:
        MachineError: the cluster has not grown in time.
    """
    began = time.monotonic()
    if trainer.wait_for_room_s == 0 or not (lacking := lacks(trainer, cpus)):
        return
    from ray.autoscaler.sdk import request_resources

    bundle = {"CPU": float(cpus), **({"GPU": 1.0} if trainer.use_gpu is True else {})}
    request_resources(bundles=[*[bundle] * trainer.workers, {"CPU": 1.0}])
    say_at_s = 0.0
    try:
        while lacking := lacks(trainer, cpus):
            waited_s = time.monotonic() - began
            if waited_s > trainer.wait_for_room_s:
                raise MachineError(
                    f"The Ray cluster has not grown in {trainer.wait_for_room_s:g} s (trainer.wait_for_room_s): "
                    f"{lacking}. Run the same command again, or wait longer."
                )
            if waited_s >= say_at_s:
                say(f"waiting for the Ray cluster to grow ({waited_s:.0f} s): {lacking}")
                say_at_s += SAY_EVERY_S
            time.sleep(min(_LOOK_S, trainer.wait_for_room_s))
    finally:
        request_resources(bundles=[])


def lacks(trainer: TrainerConfig, cpus: int, spare: int = 1) -> str:
    """What the nodes that stay lack for the least number of workers and `spare` CPUs; empty if nothing."""
    import ray

    leaving = leaving_nodes()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # untyped in Ray
    staying = [node["Resources"] for node in nodes if node["Alive"] and node["NodeID"] not in leaving]
    have = {name: sum(node.get(name, 0.0) for node in staying) for name in ("CPU", "GPU")}
    need = {"CPU": cpus * trainer.min_workers + spare, "GPU": trainer.min_workers * (trainer.use_gpu is True)}
    return ", ".join(f"{counted(have[name], name)} of {need[name]}" for name in need if have[name] < need[name])


def is_busy(trainer: TrainerConfig, cpus: int) -> str:
    """What is in use by others so that the workers cannot start; empty if nothing."""
    import ray
    from ray.util import placement_group_table

    if not any(group["state"] == "PENDING" for group in placement_group_table().values()):
        return ""  # what is not free may be in use by the workers themselves, which are starting
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]  # untyped in Ray
    need = {"CPU": cpus * trainer.min_workers, "GPU": trainer.min_workers * (trainer.use_gpu is True)}
    lacking = [name for name in need if free.get(name, 0.0) < need[name]]
    return ", ".join(f"{counted(free.get(name, 0.0), name)} of {need[name]} free" for name in lacking)


def require_room(trainer: TrainerConfig, cpus: int, *, have_cpus: float, have_gpus: float) -> None:
    """Check that a cluster is large enough for the workers.

    Raises:
        UserError: it has fewer CPUs, or GPUs if they are requested, than the workers need.
    """
    workers = trainer.min_workers
    if have_cpus < cpus * workers + 1:
        raise UserError(
            f"The Ray cluster has {counted(have_cpus, 'CPU')}, but the workers need {workers} × "
            f"{counted(cpus, 'CPU')}, and reading data needs one more. Lower trainer.num_workers or "
            "trainer.cpus_per_worker, or add nodes."
        )
    if trainer.use_gpu is True and have_gpus < workers:
        raise UserError(
            f"The Ray cluster has {counted(have_gpus, 'GPU')}, but trainer.num_workers is {workers}, and each "
            "worker needs one. Lower trainer.num_workers, set trainer.use_gpu to auto or false, or add nodes."
        )


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

"""The Ray cluster that a run uses: the one that was named, or one started on this machine."""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.errors import UserError
from vadv_dist.runtime.ray_connection import connect

_ours = False  # whether the cluster that this process is connected to was started by it


@contextmanager
def ray_session(trainer: TrainerConfig) -> Iterator[int]:
    """Join the Ray cluster that is named, or start one on this machine for as long as the block lasts.

    Sessions nest: an inner one uses what the outer one has.

    Args:
        trainer: which cluster, how many workers must fit, and how many CPUs each has.
    Yields:
        CPUs per worker.
    Raises:
        UserError: the workers do not fit the cluster: Ray would wait for room without end.
        MachineError: the cluster that is named cannot be joined.
    """
    global _ours
    import ray

    started_here = False
    workers, cores = trainer.num_workers, os.cpu_count() or 1
    mine = trainer.cpus_per_worker or max(1, cores // workers)
    if not ray.is_initialized():
        # Two more than the workers take: one for reading windows, one for Ray Train's controller.
        _ours = started_here = connect(max(cores, mine * workers) + 2, given=trainer.ray_address)
    try:
        # On a cluster that was named, other work has cores too.
        cpus = mine if _ours or trainer.cpus_per_worker else 1
        if not _ours:
            wait_for_room(trainer, cpus)
        require_room(trainer, cpus, have_cpus=cluster_resource("CPU"), have_gpus=cluster_resource("GPU"))
        yield cpus
    finally:
        if started_here:
            ray.shutdown()
            _ours = False


def wait_for_room(trainer: TrainerConfig, cpus: int) -> None:
    """Ask a cluster that grows for the workers' room, and wait for it, `trainer.wait_for_room_s` at most."""
    deadline = time.monotonic() + trainer.wait_for_room_s
    bundle = {"CPU": float(cpus), **({"GPU": 1.0} if trainer.use_gpu is True else {})}
    asked = False
    while time.monotonic() < deadline:
        with contextlib.suppress(UserError):
            require_room(trainer, cpus, have_cpus=cluster_resource("CPU"), have_gpus=cluster_resource("GPU"))
            return
        if not asked:
            from ray.autoscaler.sdk import request_resources

            request_resources(bundles=[*[bundle] * trainer.num_workers, {"CPU": 1.0}])
            asked = True
        time.sleep(2.0)


def require_room(trainer: TrainerConfig, cpus: int, *, have_cpus: float, have_gpus: float) -> None:
    """Refuse workers that a cluster has no room for.

    Raises:
        UserError: fewer CPUs, or GPUs where they are asked for, than the workers need.
    """
    workers = trainer.num_workers
    if have_cpus < cpus * workers + 1:
        raise UserError(
            f"{workers} workers of {cpus} CPUs each, and one more for reading, do not fit the Ray cluster, which "
            f"has {have_cpus:g} CPUs. Lower trainer.num_workers or trainer.cpus_per_worker, or add nodes."
        )
    if trainer.use_gpu is True and have_gpus < workers:
        raise UserError(
            f"{workers} workers of one GPU each do not fit the Ray cluster, which has {have_gpus:g} GPUs. Lower "
            "trainer.num_workers, set trainer.use_gpu to auto or false, or add nodes."
        )


def is_ours() -> bool:
    """Whether this process has started the cluster that it uses."""
    return _ours


def cluster_resource(name: str) -> float:
    """How much of a resource the whole cluster has."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # untyped in Ray
    return resources.get(name, 0.0)

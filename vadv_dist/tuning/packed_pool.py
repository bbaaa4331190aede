"""A pool whose trials fit one device or a share of one: Ray actors run one trial after another."""

import contextlib
import dataclasses
import os
from typing import Any, Self

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.engines.allocator import THREAD_ENVIRONMENT
from vadv_dist.errors import UserError
from vadv_dist.launch.cluster import cluster_resource, is_ours, ray_session
from vadv_dist.launch.shared_folder import require_shared_by_nodes
from vadv_dist.runtime.garbage_collection import collect_rarely
from vadv_dist.runtime.ray_errors import why_lost
from vadv_dist.runtime.signals import is_termination
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import location
from vadv_dist.tuning.events import Epoch, Event, Lost
from vadv_dist.tuning.pools import GRACE_SHARE
from vadv_dist.tuning.session import TrainingSession


class PackedPool:
    """A Ray actor per slot, which starts with its first trial and runs until the search ends.

    Args:
        config: the run that is varied.
        search: settings, with the number of concurrent trials and the resources of each.
    """

    def __init__(self, config: Config, search: SearchConfig) -> None:
        self._config, self._search = config, search
        self.slots = 1
        self._idle: list[Any] = []
        self._actor_of: dict[str, Any] = {}
        self._waiting: dict[Any, str] = {}

    def __enter__(self) -> Self:
        """Connect to the configured cluster, or start one on this machine.

        Raises:
            UserError: it has too few resources for a trial.
        """
        workers, cpus = self._search.concurrent or 1, self._search.cpus_per_trial
        # `ray_session` does not know shares of GPUs, which are checked below.
        trainer = dataclasses.replace(self._config.trainer, num_workers=workers, cpus_per_worker=cpus, use_gpu=False)
        with contextlib.ExitStack() as stack:
            stack.enter_context(ray_session(trainer))
            require_shared_by_nodes(location(self._config.run.storage))
            self._divide_resources()
            self._stack = stack.pop_all()
        return self

    def _divide_resources(self) -> None:
        """Set the resources of a trial, and the number of trials that fit."""
        cpus, gpus, wanted = self._search.cpus_per_trial, self._search.gpus_per_trial, self._search.concurrent
        use_gpu = self._config.trainer.use_gpu
        if use_gpu is False:
            gpus = 0.0
        elif gpus is None:
            gpus = 1.0 if use_gpu is True or cluster_resource("GPU") else 0.0
        # A cluster that was started here pretends to have two CPUs more than the machine.
        cores = os.cpu_count() or 1 if wanted is None and is_ours() else cluster_resource("CPU") - 1
        room = int(cores) // cpus
        if gpus:
            room = min(room, int(cluster_resource("GPU") / gpus + 1e-6))
        self.slots = min(wanted or room, room)
        if self.slots < 1:
            have = f"{counted(cluster_resource('CPU'), 'CPU')} and {counted(cluster_resource('GPU'), 'GPU')}"
            need = f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"
            raise UserError(
                f"The Ray cluster has {have}, but a trial needs {need}, plus one CPU for the search. Lower "
                "search.cpus_per_trial or search.gpus_per_trial."
            )
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Stop the actors; a later search resumes running trials from their checkpoints.

        On SIGTERM, running trials save a checkpoint first.
        """
        import ray

        if self._actor_of and isinstance(error, KeyboardInterrupt) and is_termination(error):
            grace_s = self._config.trainer.grace_s * GRACE_SHARE
            leaving = [actor.leave.remote(grace_s) for actor in self._actor_of.values()]
            ray.wait(leaving, num_returns=len(leaving), timeout=grace_s)
        for actor in (*self._idle, *self._actor_of.values()):
            with contextlib.suppress(Exception):
                ray.kill(actor)
        self._stack.close()

    def start(self, key: str, config: Config) -> None:
        """See `Pool`."""
        actor = self._idle.pop() if self._idle else self._new_actor()
        self._actor_of[key] = actor
        self._waiting[actor.begin.remote(config)] = key

    def next(self) -> tuple[str, Event]:
        """See `Pool`."""
        import ray

        (ready,), _ = ray.wait(list(self._waiting), num_returns=1)
        key = self._waiting.pop(ready)
        try:
            event: Event = ray.get(ready)
        except ray.exceptions.RayActorError as error:
            self._actor_of.pop(key)
            return key, Lost(why_lost([error]))
        if not isinstance(event, Epoch):
            self._idle.append(self._actor_of.pop(key))
        return key, event

    def decide(self, key: str, continues: bool) -> None:
        """See `Pool`."""
        self._waiting[self._actor_of[key].decide.remote(continues)] = key

    def _new_actor(self) -> Any:
        import ray

        environment = {**THREAD_ENVIRONMENT, "OMP_NUM_THREADS": str(self._search.cpus_per_trial)}
        actor: Any = (
            ray.remote(TrialActor)
            # Two calls at a time: `leave` is called while another call waits for the next event.
            .options(**self._resources, max_concurrency=2, runtime_env={"env_vars": environment})
            .remote(os.getcwd(), self._search.cpus_per_trial)
        )
        return actor


class TrialActor(TrainingSession):
    """A session in a Ray actor.

    Args:
        folder: the search's working directory, to which paths of a configuration are relative.
        threads: number of torch's threads.
    """

    def __init__(self, folder: str, threads: int) -> None:
        collect_rarely()
        import torch

        if os.path.isdir(folder):
            os.chdir(folder)
        torch.set_num_threads(threads)
        super().__init__()

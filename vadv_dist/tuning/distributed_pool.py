"""A pool whose trials are Ray Train runs with several workers each."""

import contextlib
import os
import time
from typing import Any, Self

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.launch.cluster import cluster_resource, ray_session
from vadv_dist.launch.shared_folder import require_shared_by_nodes
from vadv_dist.launch.worker import GROUP
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import epoch_costs
from vadv_dist.runtime.ray_errors import why_lost
from vadv_dist.storage import location
from vadv_dist.tuning.events import Ended, Epoch, Event, Lost, Stopped, failure_of

_POLL_S, _LOCK_WAIT_S = 0.5, 120.0


class DistributedPool:
    """A Ray actor per trial that starts the trial's workers; epochs are read from the trial's metrics.jsonl.

    Ray stops the workers of a process that ends, so killing a trial's actor also stops its workers. The workers do not
    wait for decisions: a trial is stopped a little after the deciding epoch.

    Args:
        config: the run that is varied, with the number of workers of a trial.
        search: settings, with the number of concurrent trials.
    """

    def __init__(self, config: Config, search: SearchConfig) -> None:
        self._config, self._search = config, search
        self.slots = 1
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> Self:
        """Connect to the configured cluster, or start one on this machine.

        Raises:
            UserError: it has too few resources for a trial's workers.
        """
        trainer = self._config.trainer
        with contextlib.ExitStack() as stack:
            cpus = stack.enter_context(ray_session(trainer))
            require_shared_by_nodes(location(self._config.run.storage))
            self._stack = stack.pop_all()
        room = int(cluster_resource("CPU")) // (cpus * trainer.num_workers + 1)
        if trainer.use_gpu is not False and cluster_resource("GPU"):
            room = min(room, int(cluster_resource("GPU")) // trainer.num_workers)
        self.slots = max(1, min(self._search.concurrent or room, room))
        return self

    def __exit__(self, *_: object) -> None:
        """Kill running trials; a later search resumes them from their checkpoints."""
        for running in self._running.values():
            running.kill()
        self._stack.close()

    def start(self, key: str, config: Config) -> None:
        """See `Pool`."""
        self._running[key] = _Running(config)

    def next(self) -> tuple[str, Event]:
        """See `Pool`."""
        while True:
            for key, running in self._running.items():
                if (event := running.poll()) is not None:
                    if not isinstance(event, Epoch):
                        del self._running[key]
                    return key, event
            time.sleep(_POLL_S)

    def decide(self, key: str, continues: bool) -> None:
        """See `Pool`."""
        if not continues:
            self._running[key].kill()
            self._running[key].stopped = True


class _Running:
    """One trial's actor, and its metrics.jsonl as read so far."""

    def __init__(self, config: Config) -> None:
        import ray

        self._folder = RunFolder.of(config)
        self._seen = {epoch for epoch, _ in self._epochs()}
        self.stopped = False
        # It only waits for its workers, so it needs no CPU.
        remote: Any = ray.remote(RunActor)
        self._actor: Any = remote.options(num_cpus=0).remote(os.getcwd())
        self._result: Any = self._actor.train.remote(config)

    def poll(self) -> Event | None:
        """Return the next event, if there is one."""
        import ray

        if self.stopped:
            return Stopped()
        for epoch, cost in self._epochs():
            if epoch not in self._seen:
                self._seen.add(epoch)
                return Epoch(epoch, cost)
        ready, _ = ray.wait([self._result], num_returns=1, timeout=0)
        if not ready:
            return None
        try:
            event: Event = ray.get(self._result)
        except ray.exceptions.RayActorError as error:
            return Lost(why_lost([error]))
        self.kill()
        return event

    def kill(self) -> None:
        """Kill the actor, and release the resources of its workers."""
        import ray
        from ray.util.placement_group import PlacementGroup, remove_placement_group

        with contextlib.suppress(Exception):
            ray.kill(self._actor)
        # Ray Train's own clean-up waits forever on a cluster without a dashboard.
        with contextlib.suppress(Exception):
            group = (self._folder.root / ".ray" / GROUP).read_text(encoding="utf-8")
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group))))

    def _epochs(self) -> list[tuple[int, float]]:
        return [(line.epoch, cost) for line, cost in epoch_costs(self._folder.metrics_log().lines())]


class RunActor:
    """Starts one run's workers and waits for them."""

    def __init__(self, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)

    def train(self, config: Config) -> Event:
        """Train to the end; failures are returned as events."""
        from vadv_dist.launch.driver import train
        from vadv_dist.runtime.terminal import console

        try:
            # The actor of a search that was killed may keep running for some seconds.
            with RunFolder.of(config).lock(wait_s=_LOCK_WAIT_S):
                pass
            return Ended(train(config, console(stderr=True, quiet=True)))
        except BaseException as error:
            return failure_of(error)

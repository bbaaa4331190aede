"""Replicas of a student on a Ray cluster, behind the HTTP server of this process.

Ray Serve's own proxies answer 500 to a request whose replica ends before its answer (Ray 2.60). A prediction changes
nothing, so this process, which holds the request, sends it to another replica instead.
"""

import asyncio
import contextlib
import dataclasses
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError

from vadv_dist.errors import MachineError
from vadv_dist.runtime.ray_connection import connect
from vadv_dist.runtime.ray_errors import last_line
from vadv_dist.runtime.signals import sigterm_kept
from vadv_dist.serving.batcher import Answer, Batcher, NoTokensError, QueueFullError
from vadv_dist.serving.load import load_model
from vadv_dist.serving.metrics import ServeMetrics
from vadv_dist.serving.settings import ServeSettings

_POLL_S = 1.0
_PAUSE_S = 0.05
_HEALTH_PERIOD_S, _HEALTH_TIMEOUT_S = 2.0, 30.0
_DEPLOYMENT = "student"


class Replica:
    """A student with its batches, in a process of the cluster.

    Args:
        settings: as in `vadv serve`.
    """

    def __init__(self, settings: ServeSettings) -> None:
        loaded = load_model(settings)
        self._batcher = Batcher(
            loaded.model,
            batch_tokens=loaded.batch_tokens,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queued=settings.queue,
        )

    async def predict(self, items: list[Any]) -> Answer:
        """Answer a request; see `Batcher.predict`."""
        await self._batcher.start()
        return await self._batcher.predict(items)

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica if this fails.

        Raises:
            RuntimeError: the batches have stopped or keep failing.
        """
        await self._batcher.start()
        if (problem := self._batcher.problem()) is not None:
            raise RuntimeError(problem)


class RayPredictor:
    """Sends requests to replicas, and again if one ends before its answer.

    Args:
        handle: Ray Serve's handle of the replicas.
        application: name of their application.
        metrics: where repeated requests are counted.
    """

    def __init__(self, handle: Any, application: str, metrics: ServeMetrics) -> None:
        self._handle = handle
        self._application = application
        self._metrics = metrics
        self._waiting = 0
        self._problem: str | None = None
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to ask for the state of the replicas."""
        self._polling = asyncio.get_running_loop().create_task(self._poll())

    async def close(self) -> None:
        """End."""
        if self._polling is not None:
            self._polling.cancel()

    def problem(self) -> str | None:
        """Why no request will be answered, or None."""
        return self._problem

    def is_healthy(self) -> bool:
        """Whether this process is still connected: Ray Serve replaces replicas itself."""
        return bool(ray.is_initialized())

    @property
    def num_queued(self) -> int:
        """Items of requests that were sent to replicas."""
        return self._waiting

    async def predict(self, items: list[Any]) -> Answer:
        """Answer a request; while no replica runs, it waits for one.

        Raises:
            QueueFullError: too many items wait.
            NoTokensError: a text has no tokens.
        """
        self._waiting += len(items)
        try:
            while True:
                try:
                    answer: Answer = await self._handle.predict.remote(items)
                    return answer
                except RayActorError:  # the replica ended, or cannot be reached
                    self._metrics.repeated.inc()
                    await asyncio.sleep(_PAUSE_S)
                except BackPressureError:
                    raise QueueFullError from None
                except RayTaskError as error:
                    if isinstance(error.cause, QueueFullError | NoTokensError):
                        raise error.cause from None
                    raise
        finally:
            self._waiting -= len(items)

    async def _poll(self) -> None:
        while True:
            try:
                running = await asyncio.to_thread(_num_running, self._application)
                self._problem = None if running else "no replica is running"
            except Exception as error:  # of many classes, also built-in ones
                self._problem = f"the Ray cluster does not answer ({last_line(error)})"
            await asyncio.sleep(_POLL_S)


def _num_running(application: str) -> int:
    status = serve.status().applications[application].deployments[_DEPLOYMENT]
    return sum(number for state, number in status.replica_states.items() if state == "RUNNING")


@contextlib.contextmanager
def replicas(
    settings: ServeSettings, number: int, port: int, address: str | None, say: Callable[[str], None]
) -> Iterator[Callable[[ServeMetrics], RayPredictor]]:
    """Replicas on a Ray cluster for the duration of the block.

    Args:
        settings: as in `vadv serve`; every node must reach the export by the same path or URI.
        number: replicas. Each reserves `settings.threads` CPUs (1 without), and a GPU if the device is one.
        port: of this process's server, which tells applications on the cluster apart.
        address: the cluster, as in `connect`.
        say: receives what is waited for.
    Yields:
        what builds the predictor of `create_app`.
    Raises:
        UserError: as in `connect`.
        MachineError: as in `connect`, or the replicas do not start.
    """
    cpus = settings.threads or 1
    on_gpu = (settings.device or "cpu").startswith("cuda")
    application = (
        f"vadv-serve-{socket.gethostname()}-{port}"  # one that was left behind by a killed process is replaced
    )
    own_cluster = connect(number * cpus + 1, field="--ray-address", given=address)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        free = ray.available_resources()  # type: ignore[no-untyped-call]
        if free.get("CPU", 0) < number * cpus or (on_gpu and free.get("GPU", 0) < number):
            say(f"waiting for {number} × {cpus} CPUs{' and a GPU each' if on_gpu else ''}: fewer are free now")
        # Replicas read the settings once, on any node: a GPU of this machine means nothing there.
        theirs = dataclasses.replace(
            settings, source=settings.source.resolve(), device="cuda" if on_gpu else "cpu", threads=cpus
        )
        deployment = serve.deployment(
            name=_DEPLOYMENT,
            num_replicas=number,
            max_ongoing_requests=settings.queue,
            max_queued_requests=settings.queue,
            health_check_period_s=_HEALTH_PERIOD_S,
            health_check_timeout_s=_HEALTH_TIMEOUT_S,
            graceful_shutdown_timeout_s=settings.timeout_s,
            ray_actor_options={"num_cpus": cpus, "num_gpus": int(on_gpu)},
        )(Replica)
        with sigterm_kept():
            serve.start(proxy_location="Disabled")  # no effect where Ray Serve runs already
            try:
                handle = serve.run(deployment.bind(theirs), name=application, route_prefix=None)
            except RuntimeError as error:
                raise MachineError(
                    f"the replicas did not start on the Ray cluster: {last_line(error)}. Every node needs this package "
                    f"with its extra 'serve', and {theirs.source} under the same name."
                ) from None
        try:
            yield lambda metrics: RayPredictor(handle, application, metrics)
        finally:
            serve.delete(application)
            if not serve.status().applications:  # others' applications go on
                serve.shutdown()  # type: ignore[no-untyped-call]
    finally:
        if own_cluster:
            ray.shutdown()

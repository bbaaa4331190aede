"""Pass a driver's stop request to rank 0 of its Ray Train workers through an actor."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_ANSWER_S, _POLL_S = 5.0, 1.0


class _StopFlag:
    """The actor: a flag that can be awaited."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._cause = ""
        self._has_waiter = False

    async def ask(self, cause: str) -> bool:
        """Set the flag; return whether a rank has ever waited for it."""
        self._cause = self._cause or cause
        self._asked.set()
        return self._has_waiter

    async def wait(self) -> str:
        """Wait until the flag is set; return the cause."""
        self._has_waiter = True
        await self._asked.wait()
        return self._cause


def stop_flag() -> Any:
    """Start the actor on the driver's node, with which it lives and dies."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor: Any = ray.remote(_StopFlag)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)  # it may be drained
    return actor.options(num_cpus=0, scheduling_strategy=here).remote()


def ask_to_stop(flag: Any, cause: str) -> bool:
    """Ask the workers to stop after their step, because of `cause`, such as `SIGTERM`.

    Returns:
        whether rank 0 hears it; if not, training has not started, and there is nothing to wait for.
    """
    import ray

    try:
        return bool(ray.get(flag.ask.remote(cause), timeout=_ANSWER_S))
    except ray.exceptions.RayError:
        return False


@contextmanager
def hearing(flag: Any | None) -> Iterator[Callable[[], str]]:
    """Yield a cheap check for rank 0 of why the flag is set, or empty if it is not; a thread waits for it."""
    asked, left = [""], threading.Event()
    if flag is None:
        yield lambda: ""
        return
    import ray

    def wait() -> None:
        try:
            raised = flag.wait.remote()
            while not left.is_set():
                if ray.wait([raised], timeout=_POLL_S)[0]:
                    asked[0] = ray.get(raised)
                    return
        except ray.exceptions.RayError:  # the actor is gone, so no request can arrive
            return

    threading.Thread(target=wait, name="vadv-stop", daemon=True).start()
    try:
        yield lambda: asked[0]
    finally:
        left.set()

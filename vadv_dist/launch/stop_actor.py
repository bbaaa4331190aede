"""How a driver's wish to stop reaches rank 0 of its Ray Train workers: through an actor that both know."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vadv_dist.runtime.signals import TerminatedError

_ANSWER_S, _LOOK_S = 5.0, 1.0


class _StopFlag:
    """The actor: a flag that can be waited for."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._is_heard = False

    async def ask(self) -> bool:
        """Raise the flag; return whether a rank has ever waited for it."""
        self._asked.set()
        return self._is_heard

    async def wait(self) -> None:
        """Wait until the flag is raised."""
        self._is_heard = True
        await self._asked.wait()


def stop_flag() -> Any:
    """Start the actor; it lives as long as the driver."""
    import ray

    actor: Any = ray.remote(_StopFlag)
    return actor.options(num_cpus=0).remote()


def ask_to_stop(flag: Any) -> None:
    """Ask the workers to stop after their step.

    Raises:
        TerminatedError: they have not begun to train, so that there is nothing to wait for.
    """
    import ray

    try:
        is_heard = ray.get(flag.ask.remote(), timeout=_ANSWER_S)
    except ray.exceptions.RayError:
        is_heard = False
    if not is_heard:
        raise TerminatedError


@contextmanager
def hearing(flag: Any | None) -> Iterator[Callable[[], bool]]:
    """Yield what tells rank 0 at no cost whether the flag is raised: a thread waits for it."""
    asked, left = threading.Event(), threading.Event()
    if flag is None:
        yield asked.is_set
        return
    import ray

    def wait() -> None:
        try:
            raised = flag.wait.remote()
            while not left.is_set():
                if ray.wait([raised], timeout=_LOOK_S)[0]:
                    ray.get(raised)
                    asked.set()
                    return
        except ray.exceptions.RayError:  # the actor is gone: nobody can ask any more
            return

    threading.Thread(target=wait, name="vadv-stop", daemon=True).start()
    try:
        yield asked.is_set
    finally:
        left.set()

"""The interface of pools, which run a search's trainings, and a pool that runs them in this process."""

from typing import Any, Protocol, Self

from vadv_dist.runtime.signals import is_termination
from vadv_dist.tuning.events import Event
from vadv_dist.tuning.session import TrainingSession

# Of `trainer.grace_s`, what trainings get; the rest is for leaving the cluster.
GRACE_SHARE = 0.7


class Pool(Protocol):
    """Runs up to `slots` trainings at a time, identified by keys; after an `Epoch` a training waits for `answer`."""

    @property
    def slots(self) -> int:
        """Maximum number of concurrent trainings."""
        ...

    def __enter__(self) -> Self:
        """Acquire the resources of the trainings."""
        ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Release the resources."""
        ...

    def start(self, key: str, raw: dict[str, Any]) -> None:
        """Start the training of a configuration; there must be a free slot."""
        ...

    def next(self) -> tuple[str, Event]:
        """Wait for the next event of any training."""
        ...

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a training's `Epoch`."""
        ...


class LocalPool:
    """One training at a time in this process, without Ray.

    Args:
        grace_s: seconds that SIGTERM leaves a training to write a checkpoint.
    """

    slots = 1

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._session = TrainingSession()
        self._key = ""
        self._pending: tuple[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """On SIGTERM, let the running training save a checkpoint."""
        if isinstance(error, KeyboardInterrupt) and is_termination(error):
            self._session.leave(self._grace_s * GRACE_SHARE)

    def start(self, key: str, raw: dict[str, Any]) -> None:
        """See `Pool`."""
        self._key, self._pending = key, ("begin", raw)

    def next(self) -> tuple[str, Event]:
        """See `Pool`."""
        assert self._pending is not None, "nothing runs"
        what, argument = self._pending
        self._pending = None
        return self._key, (self._session.begin if what == "begin" else self._session.answer)(argument)

    def answer(self, key: str, go_on: bool) -> None:
        """See `Pool`."""
        self._pending = ("answer", go_on)

"""Where a rank is in its run, so that a watcher can tell a stopped rank from one that has a reason to wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# Steps of an attempt that may take arbitrarily long: kernels are compiled, graphs recorded, connections opened.
_FIRST_STEPS = 3


@dataclass(frozen=True)
class Beat:
    """What a rank is doing at one moment.

    Attributes:
        step: updates of the run so far.
        doing: words for a message, such as `training` or `validating`.
        still_s: seconds since the last progress; 0 while the rank does what may take arbitrarily long.
    """

    step: int
    doing: str
    still_s: float


@dataclass
class Pulse:
    """One rank's progress; its training thread writes it, other threads read it.

    Time counts as standing still only in training steps after the first three of an attempt. It does not count while
    the rank starts, loads, waits for data, validates, writes a checkpoint or finishes the run, all of which depend on
    storage or on the size of the data.
    """

    _step: int = 0
    _steps_here: int = 0
    _doing: str = "starting"
    _counts: bool = False
    _since: float = field(default_factory=time.monotonic)

    def step(self, step: int) -> None:
        """Record that a step is complete."""
        self._step, self._doing, self._since = step, "training", time.monotonic()
        self._steps_here += 1
        self._counts = self._steps_here >= _FIRST_STEPS

    def wait(self) -> None:
        """Record that the rank waits for data; called again and again while it does."""
        self._since = time.monotonic()

    @contextmanager
    def away(self, doing: str) -> Iterator[None]:
        """Do not count time during the block."""
        before, counts = self._doing, self._counts
        self._doing, self._counts = doing, False
        try:
            yield
        finally:
            self._doing, self._since, self._counts = before, time.monotonic(), counts

    def rest(self, doing: str) -> None:
        """Do not count time any more: the loop is over, and what remains is storage."""
        self._doing, self._counts = doing, False

    def read(self) -> Beat:
        """The present state."""
        still_s = time.monotonic() - self._since if self._counts else 0.0
        return Beat(self._step, self._doing, still_s)

"""Agreement among the ranks of a run to stop after the same step."""

import time
from collections.abc import Callable

import torch

from vadv_dist.engines.distributed import Distributed

# Seconds between two exchanges: short compared with the grace period, long compared with a step.
_EVERY_S = 0.5


class StopAgreement:
    """Whether to stop now; every rank calls it at the same points, such as after each step, and gets the same answer.

    A single rank checks its own flag. Several ranks exchange rank 0's flag about every half second; rank 0 also
    broadcasts the number of calls until the next exchange, so that the calls in between cost nothing.

    Args:
        distributed: this rank.
        asked: why this rank was asked to stop, or empty; only rank 0's answer counts.
        every_s: seconds between two exchanges.
    """

    def __init__(self, distributed: Distributed, asked: Callable[[], str], every_s: float = _EVERY_S) -> None:
        self._distributed = distributed
        self._asked = asked
        self._every_s = every_s
        self._calls, self._until = 0, 1
        self._since = time.monotonic()

    def __call__(self) -> bool:
        """Whether all ranks stop now."""
        if self._distributed.world_size == 1:
            return bool(self._asked())
        self._calls += 1
        if self._calls < self._until:
            return False
        word = torch.zeros(2, dtype=torch.long, device=self._distributed.device)
        if self._distributed.is_main:
            word += torch.tensor([int(bool(self._asked())), self._next_in()], device=word.device)
        stops, calls = self._distributed.sum(word).tolist()
        self._calls, self._until = 0, calls
        self._since = time.monotonic()
        return bool(stops)

    def _next_in(self) -> int:
        """Calls until the next exchange, from the pace since the last one; at most twice as many as last time."""
        seconds = (time.monotonic() - self._since) / self._calls
        return max(1, min(int(self._every_s / max(seconds, 1e-6)), 2 * self._until))

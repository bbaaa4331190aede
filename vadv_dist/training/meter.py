"""Loss terms summed over steps: what is logged is what was optimised, over all ranks and micro-batches."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vadv_dist.training.distributed import Distributed


class TermMeter:
    """Sums each step's terms; a mean over steps is formed, over all ranks, only when it is asked for.

    Nothing waits for the device until then.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self._steps = 0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's share of the terms (all micro-batches of all ranks add up to the step's)."""
        stacked = torch.stack([value.detach().double() for value in terms.values()])
        self._names = list(terms)
        self._sum = stacked if self._sum is None else self._sum + stacked

    def end_step(self) -> None:
        """Count one step."""
        self._steps += 1

    def total(self, distributed: Distributed) -> tuple[dict[str, float], int]:
        """Sum of each term over steps and ranks, and the number of steps; then begin again."""
        if self._sum is None:
            return {}, 0
        values = distributed.sum(self._sum).tolist()
        answer = dict(zip(self._names, values, strict=True)), self._steps
        self._sum, self._steps = None, 0
        return answer

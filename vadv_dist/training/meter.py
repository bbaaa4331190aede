"""Loss terms summed over steps: what is logged is what was optimised, over all ranks and micro-batches."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vadv_dist.training.distributed import Distributed


class TermMeter:
    """Sums each step's terms by name; sums over ranks are formed only when they are asked for.

    Nothing waits for the device until then. A term may be absent from some steps, as before an objective begins: it is
    counted over the steps that had it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._seen: set[str] = set()

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's share of the terms (all micro-batches of all ranks add up to the step's)."""
        for name, value in terms.items():
            value = value.detach().double()
            self._sums[name] = value if name not in self._sums else self._sums[name] + value
        self._seen |= terms.keys()

    def end_step(self) -> None:
        """Count one step."""
        for name in self._seen:
            self._counts[name] = self._counts.get(name, 0) + 1
        self._seen = set()

    def take(self, distributed: Distributed) -> tuple[dict[str, float], dict[str, int]]:
        """Sum of each term over steps and ranks, and the number of steps that had it; then begin again."""
        counts: dict[str, int] = {}
        for rank in distributed.gather(self._counts):
            for name, count in rank.items():
                counts[name] = max(count, counts.get(name, 0))
        sums: dict[str, float] = {}
        if counts:
            zero = torch.zeros((), dtype=torch.float64, device=distributed.device)
            stacked = torch.stack([self._sums.get(name, zero) for name in counts])
            sums = dict(zip(counts, distributed.sum(stacked).tolist(), strict=True))
        self._sums, self._counts = {}, {}
        return sums, counts

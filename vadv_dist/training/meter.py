"""Loss terms summed over steps: what is logged is what was optimised, over all ranks and micro-batches."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vadv_dist.engines.distributed import Distributed


class TermMeter:
    """Sums each step's terms by name; sums over ranks are formed only when they are asked for.

    Nothing waits for the device until then. A term may be absent from some steps, as before an objective begins: it is
    counted over the steps that had it.
    """

    def __init__(self) -> None:
        # By the names that a micro-batch had, so that its terms are added in one operation.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[str, int] = {}
        self._seen: set[str] = set()

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's share of the terms (all micro-batches of all ranks add up to the step's)."""
        names, stacked = tuple(terms), torch.stack([value.detach().double() for value in terms.values()])
        self._sums[names] = stacked if names not in self._sums else self._sums[names] + stacked
        self._seen.update(names)

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
            places = {name: place for place, name in enumerate(counts)}
            mine = torch.zeros(len(counts), dtype=torch.float64, device=distributed.device)
            for names, values in self._sums.items():
                mine[[places[name] for name in names]] += values
            sums = dict(zip(counts, distributed.sum(mine).tolist(), strict=True))
        self._sums, self._counts = {}, {}
        return sums, counts

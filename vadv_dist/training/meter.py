"""Loss terms summed over steps, ranks and micro-batches, so that the log shows exactly what was optimised."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vadv_dist.engines.distributed import Distributed


class TermMeter:
    """Sums each step's terms by name; `take` sums over ranks, and nothing waits for the device before that.

    A term may be absent from some steps; its mean is taken over the steps that had it.
    """

    def __init__(self) -> None:
        # Keyed by all names of a micro-batch, so that its terms are added in one operation.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[str, int] = {}
        self._seen: set[str] = set()

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add one micro-batch's share of the terms; the shares of all micro-batches and ranks sum to the step's."""
        names, stacked = tuple(terms), torch.stack([value.detach().double() for value in terms.values()])
        self._sums[names] = stacked if names not in self._sums else self._sums[names] + stacked
        self._seen.update(names)

    def end_step(self) -> None:
        """Count one step."""
        for name in self._seen:
            self._counts[name] = self._counts.get(name, 0) + 1
        self._seen = set()

    def take(self, distributed: Distributed) -> tuple[dict[str, float], dict[str, int]]:
        """Return each term's sum over steps and ranks and its number of steps, and reset the meter."""
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

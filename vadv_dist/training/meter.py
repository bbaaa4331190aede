"""What a line of metrics.jsonl reports: loss terms summed over steps, ranks and micro-batches, counts and rates."""

import time
from collections.abc import Callable, Mapping
from typing import Any

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
        names, stacked = tuple(terms), torch.stack([value.detach() for value in terms.values()]).double()
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


class RankCounts:
    """Gathers what each rank counts between two lines of metrics.jsonl.

    Args:
        distributed: this rank.
        node: id of the node on which it reads.
    """

    def __init__(self, distributed: Distributed, node: str) -> None:
        self._distributed = distributed
        nodes = distributed.gather(node)
        order = list(dict.fromkeys(nodes))
        self._node_of = [order.index(node) for node in nodes]

    def gather(
        self, *, tokens: int, clock: int, wait_s: float, compute_s: float | None, bytes_read: int
    ) -> tuple[int, int, dict[str, Any]]:
        """Exchange the counts with all ranks, in one operation.

        Args:
            tokens: trained on by this rank.
            clock: `RunCheckpoints.clock`.
            wait_s, compute_s, bytes_read: of this rank, as in `StepLine`; `compute_s` is None on all ranks or on none.
        Returns:
            the sums of `tokens` and of `clock`, and fields of a `StepLine`.
        """
        ranks = self._distributed.world_size
        mine = torch.zeros(ranks, 5, dtype=torch.float64)
        counts = [tokens, clock, wait_s, compute_s or 0.0, bytes_read]
        mine[self._distributed.rank] = torch.tensor(counts, dtype=torch.float64)
        table = self._distributed.sum(mine.to(self._distributed.device)).T.tolist()
        node_bytes = [0] * (max(self._node_of) + 1)
        for node, read in zip(self._node_of, table[4], strict=True):
            node_bytes[node] += int(read)
        fields: dict[str, Any] = {"node_bytes": node_bytes} if any(node_bytes) else {}
        if ranks > 1:
            fields |= {"waits_s": table[2], "compute_s": None if compute_s is None else table[3]}
        return int(sum(table[0])), int(sum(table[1])), fields


class LogLine:
    """Counts since the previous line of metrics.jsonl.

    Attributes:
        samples, tokens: clips trained on by all ranks, and tokens trained on by this rank.
        wait_s: seconds that steps waited for data.
        lr, grad_norm: learning rate and gradient norm before clipping, both of the last step.
    """

    def __init__(self) -> None:
        self.samples = self.tokens = 0
        self.wait_s = self.lr = 0.0
        self.grad_norm: Tensor | None = None
        self._began = time.perf_counter()

    def rates(
        self, tokens: int, device: torch.device, utilisation: Callable[[int, int, float], float] | None
    ) -> dict[str, Any]:
        """Rates of a `StepLine`; `tokens` is summed over all ranks."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        return {
            "lr": self.lr,
            "grad_norm": None if self.grad_norm is None else float(self.grad_norm),
            "samples_per_s": self.samples / seconds,
            "tokens_per_s": tokens / seconds if tokens else None,
            "data_wait_s": self.wait_s,
            "line_s": seconds,
            **({"mfu": utilisation(self.samples, tokens, seconds)} if utilisation is not None else {}),
            **({"gpu_memory_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}),
        }

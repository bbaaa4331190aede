"""The weights of a step's loss terms, the same on every rank and for every micro-batch of the step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vadv_dist.engines.distributed import Distributed
from vadv_dist.tasks.base import Task


class TermWeights:
    """Hands a step's losses, summed over ranks and micro-batches, to what weighs them, and its weights to the loss.

    Its state is a few numbers, the same on all ranks and apart from the engine: it is saved with the position of the
    run, so that any engine and any number of workers goes on with it.

    A term that a batch lacks, or of which it has no clip, has no value there (its sum is 0). It counts with the last
    value that it had.

    Args:
        task: names the terms and how they are weighed.
        distributed: this rank.
    """

    def __init__(self, task: Task, distributed: Distributed) -> None:
        self._names = task.weighted_terms
        self._weighting = task.weighting(distributed.device)
        self._distributed = distributed
        self._last = torch.ones(len(self._names), dtype=torch.float64, device=distributed.device)
        self._seed = 0
        self._seen: Tensor | None = None
        self._weights: Tensor | None = None
        self._sum: Tensor | None = None

    @property
    def looks(self) -> bool:
        """Whether a step's weights depend on its own losses."""
        return self._weighting is not None and self._weighting.looks

    def begin(self, seed: int) -> None:
        """Begin a step; `seed` is its own, the same on all ranks."""
        self._seed, self._seen, self._weights = seed, None, None
        if self._weighting is not None and not self._weighting.looks:
            self._weights = self._weighting.weights(self._last, seed)

    def see(self, terms: Mapping[str, Tensor]) -> None:
        """Add this rank's share of a micro-batch's terms to the step's losses."""
        zero = torch.zeros((), dtype=torch.float64, device=self._last.device)
        share = torch.stack([terms.get(name, zero).detach().double() for name in self._names])
        self._seen = share if self._seen is None else self._seen + share

    def decide(self) -> None:
        """Form the step's weights from the losses that all ranks have seen."""
        assert self._weighting is not None
        self._weights = self._weighting.weights(self._losses(), self._seed)

    def of(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Weights of a micro-batch's terms, each [], fp32; None where they are fixed."""
        if self._weighting is None:
            return None
        if self._weights is None:  # a single micro-batch, which is the whole step
            self.see(terms)
            self.decide()
        elif self._weighting.learns:
            self.see(terms)
        assert self._weights is not None
        return dict(zip(self._names, self._weights.float().unbind(), strict=True))

    def end_step(self) -> None:
        """Close a step after its update."""
        if self._weighting is None:
            return
        if self._weighting.learns:
            self._weighting.observe(self._losses())
        self._sum = self._weights if self._sum is None or self._weights is None else self._sum + self._weights

    def end_epoch(self) -> None:
        """Close an epoch."""
        if self._weighting is not None:
            self._weighting.end_epoch()

    def take_sums(self) -> dict[str, float]:
        """Weights summed over the steps since the last call; empty where they are fixed."""
        if self._sum is None:
            return {}
        sums, self._sum = self._sum.tolist(), None
        return dict(zip(self._names, sums, strict=True))

    def state(self) -> dict[str, Any]:
        """All that decides the weights to come, as plain numbers; empty where they are fixed."""
        if self._weighting is None:
            return {}
        return {**self._whose(), "last": self._last.tolist(), "own": self._weighting.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave; what weighed other terms, or in another way, is left behind."""
        if self._weighting is None or {name: state.get(name) for name in self._whose()} != self._whose():
            return
        self._last = torch.tensor(state["last"], dtype=torch.float64, device=self._last.device)
        self._weighting.load(state["own"])

    def _whose(self) -> dict[str, Any]:
        return {"terms": list(self._names), "method": type(self._weighting).__name__}

    def _losses(self) -> Tensor:
        assert self._seen is not None
        losses = self._distributed.sum(self._seen)
        self._last = torch.where(losses == 0, self._last, losses)
        return self._last

"""The weights of a step's loss terms, the same on every rank and for every micro-batch of the step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vadv_dist.engines.distributed import Distributed
from vadv_dist.tasks.base import Task
from vadv_dist.training.distillation_schedule import DistillationSchedule


class TermWeights:
    """Passes a step's losses, summed over ranks and micro-batches, to the weighting, and its weights to the loss.

    Its state is a few numbers that are the same on all ranks and independent of the engine, saved with the position of
    the run, so that a run can be resumed with any engine and number of workers.

    A term that is absent from a batch, or has no clips in it, has the sum 0; its last value is used instead.

    The weights of the terms that distil, fixed or not, are multiplied by the factor of their schedule in each epoch.

    Args:
        task: defines the terms and the weighting.
        distributed: this rank.
        schedule: of the terms that distil.
    """

    def __init__(self, task: Task, distributed: Distributed, schedule: DistillationSchedule) -> None:
        self._fixed: dict[str, float | Tensor] = dict(task.weights)
        self._names = [name for name, weight in task.weights.items() if weight > 0]
        self._weighting = task.weighting(distributed.device)
        self._distributed = distributed
        self._last = torch.ones(len(self._names), dtype=torch.float64, device=distributed.device)
        self._seed = 0
        self._seen: Tensor | None = None
        self._weights: Tensor | None = None
        # What the loss reads: the same tensor in every step, so that a recorded step reads its new values.
        self._current = torch.ones(len(self._names), dtype=torch.float32, device=distributed.device)
        self._sum: Tensor | None = None
        self._schedule = schedule
        distils = {name: task.weights[name] for name in self._names if task.description.term(name).distils}
        self._scales = bool(distils) and not schedule.is_constant
        self._factors = torch.ones_like(self._last)
        self._distils = torch.tensor([name in distils for name in self._names], device=distributed.device)
        # Likewise read by a recorded step, where the weights are fixed.
        self._scaled = torch.tensor([*distils.values()], dtype=torch.float32, device=distributed.device)
        self._unscaled = self._scaled.clone()
        if self._scales:
            self._fixed |= dict(zip(distils, self._scaled.unbind(), strict=True))

    def begin_epoch(self, epoch: int, guard: float) -> float | None:
        """Set the factor of the terms that distil for an epoch.

        Args:
            epoch: from 0.
            guard: what the teacher knows compared with the student; the same on all ranks.
        Returns:
            the factor; None if it is always 1, or no weighted term distils.
        """
        if not self._scales:
            return None
        factor = self._schedule.factor(epoch, guard)
        self._factors.masked_fill_(self._distils, factor)
        torch.mul(self._unscaled, factor, out=self._scaled)
        return factor

    @property
    def needs_losses(self) -> bool:
        """Whether a step's weights depend on its own losses."""
        return self._weighting is not None and self._weighting.needs_losses

    def begin(self, seed: int) -> None:
        """Begin a step; `seed` differs between steps and is the same on all ranks."""
        self._seed, self._seen, self._weights = seed, None, None
        if self._weighting is not None and not self._weighting.needs_losses:
            self._set(self._weighting.weights(self._last, seed))

    @property
    def are_known(self) -> bool:
        """Whether the step's weights are determined, so that `of` returns the same tensors for any terms."""
        return self._weighting is None or self._weights is not None

    def see(self, terms: Mapping[str, Tensor]) -> None:
        """Add this rank's share of a micro-batch's terms to the step's losses."""
        zero = torch.zeros((), dtype=torch.float64, device=self._last.device)
        share = torch.stack([terms.get(name, zero).detach().double() for name in self._names])
        self._seen = share if self._seen is None else self._seen + share

    def decide(self) -> None:
        """Compute the step's weights from the losses of all ranks."""
        assert self._weighting is not None
        self._set(self._weighting.weights(self._losses(), self._seed))

    def of(self, terms: Mapping[str, Tensor]) -> Mapping[str, float | Tensor]:
        """Weights of a micro-batch's terms; tensors are [], fp32."""
        if self._weighting is None:
            return self._fixed
        if self._weights is None:  # the step has a single micro-batch
            self.see(terms)
            self.decide()
        return {**self._fixed, **dict(zip(self._names, self._current.unbind(), strict=True))}

    def end_step(self, terms: Sequence[Mapping[str, Tensor]]) -> None:
        """End a step after its update; `terms` are this rank's shares by micro-batch."""
        if self._weighting is None:
            return
        if self._weighting.learns:
            for share in terms:
                self.see(share)
            self._weighting.observe(self._losses())
        self._sum = self._weights if self._sum is None or self._weights is None else self._sum + self._weights

    def end_epoch(self) -> None:
        """End an epoch."""
        if self._weighting is not None:
            self._weighting.end_epoch()

    def take_sums(self) -> dict[str, float]:
        """Weights summed over the steps since the last call; empty if they are fixed."""
        if self._sum is None:
            return {}
        sums, self._sum = self._sum.tolist(), None
        return dict(zip(self._names, sums, strict=True))

    def state(self) -> dict[str, Any]:
        """State that determines future weights, as plain numbers; empty if they are fixed."""
        if self._weighting is None:
            return {}
        return {**self._whose(), "last": self._last.tolist(), "own": self._weighting.state()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`; a state of other terms or another weighting is ignored."""
        if self._weighting is None or {name: state.get(name) for name in self._whose()} != self._whose():
            return
        self._last = torch.tensor(state["last"], dtype=torch.float64, device=self._last.device)
        self._weighting.load(state["own"])

    def _set(self, weights: Tensor) -> None:
        self._weights = weights * self._factors
        self._current.copy_(self._weights)

    def _whose(self) -> dict[str, Any]:
        return {"terms": self._names, "method": type(self._weighting).__name__}

    def _losses(self) -> Tensor:
        assert self._seen is not None
        losses = self._distributed.sum(self._seen)
        self._last = torch.where(losses == 0, self._last, losses)
        return self._last

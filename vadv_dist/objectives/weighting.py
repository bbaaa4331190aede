"""Weights of the loss terms without search: from the losses, from random numbers, or constant.

Each method turns the values of the terms into one number (TorchJD's scalarizations, and one of ours), and a term's
weight is the derivative of that number with respect to the term; the model is trained on the sum of the terms with
these weights. A method therefore sees the values of the whole batch, while each rank and micro-batch weights its share
of the terms.

Shape letters: K weighted terms.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchjd.scalarization import Scalarizer

State = dict[str, Any]
# The gradients of all terms are clipped together: a term with 100 times the weight leaves 1 % to the student's term.
COLLAPSE_RATIO = 100.0


class Weighting:
    """Weights of K terms, step by step; this class weights all equally.

    Args:
        num_terms: K.
        device: device of the losses.
    """

    # Whether the weights of a step depend on that step's losses.
    needs_losses = False
    # Whether the losses are needed.
    learns = False

    def __init__(self, num_terms: int, device: torch.device) -> None:
        self._num_terms, self._device = num_terms, device

    def weights(self, losses_K: Tensor, seed: int) -> Tensor:
        """Return the weights of a step, [K], fp64; called once per step.

        Args:
            losses_K: values of the terms over the whole batch, positive, fp64; used if `needs_losses` is set.
            seed: seed of the step, the same on all ranks.
        """
        return torch.ones(self._num_terms, dtype=torch.float64, device=self._device)

    def observe(self, losses_K: Tensor) -> None:
        """Process the losses of a step after its update; called if `learns` is set."""

    def end_epoch(self) -> None:
        """Finish an epoch."""

    def state(self) -> State:
        """Return the state that determines future weights as plain numbers, which JSON represents exactly."""
        return {}

    def load(self, state: State) -> None:
        """Restore the result of `state`."""


class RandomWeighting(Weighting):
    """Random weights for each step: a softmax of normal random numbers (RLW; Lin et al., arXiv:2111.10603)."""

    def weights(self, losses_K: Tensor, seed: int) -> Tensor:
        """See `Weighting.weights`; sets the seed of torch's generators."""
        from torchjd.scalarization import Random

        torch.manual_seed(seed)
        # Drawn on the CPU, because a GPU's generator gives other numbers.
        drawn = slope(Random(), torch.ones(self._num_terms, dtype=torch.float64))
        return drawn.to(self._device, non_blocking=True)


class LabelUncertaintyWeighting(Weighting):
    """Weights e^-s / 2 of label terms, with s learned to minimise Σ (e^-s L + s) / 2; 1/2 for all others.

    Source: Kendall et al., arXiv:1705.07115, where e^s is the variance of a label around the output, and the sum is the
    likelihood of the labels. A distance between two outputs of the model is not a likelihood of an observation: it can
    fall to 0 and its s to minus infinity, and its weight then hides every other term. Such terms keep s = 0, the
    initial value. As in TorchJD, every term has the Gaussian form; the paper omits the half for cross-entropy, which
    only shifts the initial s. A separate Adam learns s: its gradient needs only the losses and takes no part in
    gradient clipping.

    Args:
        is_label_term: for each of the K terms, whether it compares an output with the label.
        device: see `Weighting`.
        lr: learning rate of s.
    """

    learns = True

    def __init__(self, is_label_term: Sequence[bool], device: torch.device, *, lr: float) -> None:
        from torchjd.scalarization import UW

        super().__init__(len(is_label_term), device)
        self._learned = torch.tensor(is_label_term, device=device).nonzero().squeeze(-1)
        self._scalarizer = UW(len(self._learned)).double().to(device) if len(self._learned) else None
        if self._scalarizer is not None:
            self._adam = torch.optim.Adam(self._scalarizer.parameters(), lr=lr)

    def weights(self, losses_K: Tensor, seed: int) -> Tensor:
        """See `Weighting.weights`."""
        weights_K = torch.full((self._num_terms,), 0.5, dtype=torch.float64, device=self._device)
        if self._scalarizer is not None:
            ones = torch.ones(len(self._learned), dtype=torch.float64, device=self._device)
            weights_K[self._learned] = slope(self._scalarizer, ones)
        return weights_K

    def observe(self, losses_K: Tensor) -> None:
        """See `Weighting.observe`: a step of Adam on s."""
        if self._scalarizer is not None:
            self._adam.zero_grad()
            torch.autograd.backward(self._scalarizer(losses_K.detach()[self._learned]))
            self._adam.step()

    def state(self) -> State:
        """See `Weighting.state`."""
        if self._scalarizer is None:
            return {}
        return {"log_variance": self._scalarizer.log_var.tolist(), "adam": adam_state(self._adam)}

    def load(self, state: State) -> None:
        """See `Weighting.load`."""
        if self._scalarizer is not None:
            self._scalarizer.log_var.data.copy_(torch.tensor(state["log_variance"], dtype=torch.float64))
            load_adam(self._adam, state["adam"])


class SoftOptimalUncertaintyWeighting(Weighting):
    """Weights softmax(1 / (T L)): the optimal s of `LabelUncertaintyWeighting` in closed form, softened.

    Source: UW-SO, Kirchdorfer et al. 2024 (arXiv:2408.07985).

    Args:
        num_terms, device: see `Weighting`.
        temperature: T; higher values give more equal weights.
    """

    needs_losses = True

    def __init__(self, num_terms: int, device: torch.device, *, temperature: float) -> None:
        super().__init__(num_terms, device)
        self._temperature = temperature

    def weights(self, losses_K: Tensor, seed: int) -> Tensor:
        """See `Weighting.weights`."""
        return torch.softmax(1 / (self._temperature * losses_K.detach()), dim=0)


class DynamicWeightAverage(Weighting):
    """Weights K softmax(r / T), where r is the ratio of a term's means over the last epoch and the one before.

    A term that decreases more slowly than others gets more weight. In the first two epochs all weights are equal.
    Source: DWA, Liu et al., arXiv:1803.10704.

    Args:
        num_terms, device: see `Weighting`.
        temperature: T (the paper: 2).
    """

    learns = True

    def __init__(self, num_terms: int, device: torch.device, *, temperature: float) -> None:
        super().__init__(num_terms, device)
        self._temperature = temperature
        self._means: list[Tensor] = []  # of at most two epochs
        self._sum = torch.zeros(num_terms, dtype=torch.float64, device=device)
        self._steps = 0

    def weights(self, losses_K: Tensor, seed: int) -> Tensor:
        """See `Weighting.weights`."""
        from torchjd.scalarization import DWA

        scalarizer = DWA(self._temperature)
        for mean_K in self._means:  # treated as epochs of one step each
            scalarizer(mean_K)
            scalarizer.step()
        return slope(scalarizer, torch.ones_like(self._sum))

    def observe(self, losses_K: Tensor) -> None:
        """See `Weighting.observe`."""
        self._sum += losses_K.detach()
        self._steps += 1

    def end_epoch(self) -> None:
        """See `Weighting.end_epoch`."""
        if self._steps:
            self._means = [*self._means, self._sum / self._steps][-2:]
            self._sum, self._steps = torch.zeros_like(self._sum), 0

    def state(self) -> State:
        """See `Weighting.state`."""
        return {"means": [m.tolist() for m in self._means], "sum": self._sum.tolist(), "steps": self._steps}

    def load(self, state: State) -> None:
        """See `Weighting.load`."""
        self._means = [torch.tensor(mean, dtype=torch.float64, device=self._device) for mean in state["means"]]
        self._sum = torch.tensor(state["sum"], dtype=torch.float64, device=self._device)
        self._steps = int(state["steps"])


class FastAdaptiveWeighting(Weighting):
    """Weights in proportion to z / L, where z is a softmax of logits that learn to decrease all terms at the same rate.

    The logits learn from the losses before and after an update. The paper computes both on one batch, which costs
    another forward pass; here the losses after an update are those of the next batch, before its own update.
    Source: FAMO, Liu et al., arXiv:2306.03792.

    Args:
        num_terms, device: see `Weighting`.
        lr: learning rate of the logits (the paper: 0.025).
    """

    needs_losses = True

    def __init__(self, num_terms: int, device: torch.device, *, lr: float) -> None:
        from vadv_dist.objectives.resumable_famo import ResumableFamo

        super().__init__(num_terms, device)
        self._scalarizer = ResumableFamo(num_terms, lr=lr).double().to(device)

    def weights(self, losses_K: Tensor, seed: int) -> Tensor:
        """See `Weighting.weights`."""
        if self._scalarizer.has_seen_losses:
            self._scalarizer.update(losses_K.detach())
        return slope(self._scalarizer, losses_K)

    def state(self) -> State:
        """See `Weighting.state`."""
        return self._scalarizer.plain_state()

    def load(self, state: State) -> None:
        """See `Weighting.load`."""
        self._scalarizer.load_plain_state(state)


def find_collapse(weights: Mapping[str, float], own: str | None) -> tuple[str, float] | None:
    """Return the heaviest term and its weight as a multiple of that of `own`, if that is at least `COLLAPSE_RATIO`.

    Args:
        weights: mean weights over some steps, by term.
        own: the term that trains the model in question; the result is None if it has no weight.
    """
    if own is None or own not in weights:
        return None
    term, heaviest = max(weights.items(), key=lambda entry: entry[1])
    if heaviest <= 0 or heaviest < COLLAPSE_RATIO * weights[own]:
        return None
    return term, heaviest / weights[own] if weights[own] > 0 else math.inf


def slope(scalarizer: "Scalarizer", losses_K: Tensor) -> Tensor:
    """Derivative of a scalarization with respect to each loss, [K]."""
    leaf_K = losses_K.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(scalarizer(leaf_K), leaf_K)[0]


def adam_state(adam: torch.optim.Adam) -> State:
    """State of the single tensor that an Adam trains; empty before its first step."""
    (parameter,) = adam.param_groups[0]["params"]
    return {name: value.tolist() for name, value in adam.state.get(parameter, {}).items()}


def load_adam(adam: torch.optim.Adam, state: State) -> None:
    """Restore the result of `adam_state`."""
    (parameter,) = adam.param_groups[0]["params"]
    if state:
        moments = {name: torch.tensor(state[name], dtype=torch.float64, device=parameter.device) for name in state}
        adam.state[parameter] = {**moments, "step": torch.tensor(float(state["step"]))}

"""Weights compared with hand calculations of the papers' formulas, and with TorchJD used as documented."""

import json
import math

import pytest
import torch
from torch import Tensor, nn
from torchjd.scalarization import DWA, FAMO, UW

from vadv_dist.objectives.weighting import (
    DynamicWeightAverage,
    FastAdaptiveWeighting,
    LabelUncertaintyWeighting,
    RandomWeighting,
    SoftOptimalUncertaintyWeighting,
    Weighting,
    find_collapse,
    slope,
)

CPU = torch.device("cpu")
LOSSES = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
MAKE = {
    "equal": lambda: Weighting(3, CPU),
    "uncertainty": lambda: LabelUncertaintyWeighting([True, False, True], CPU, lr=0.1),
    "uw_so": lambda: SoftOptimalUncertaintyWeighting(3, CPU, temperature=2.0),
    "dwa": lambda: DynamicWeightAverage(3, CPU, temperature=2.0),
    "rlw": lambda: RandomWeighting(3, CPU),
    "famo": lambda: FastAdaptiveWeighting(3, CPU, lr=0.1),
}


def losses(step: int) -> Tensor:
    return torch.rand(3, dtype=torch.float64, generator=torch.Generator().manual_seed(step)) + 0.1


def run(weighting: Weighting, steps: range, *, epoch: int = 4) -> list[Tensor]:
    """Weights of some steps with synthetic losses and several epochs."""
    given = []
    for step in steps:
        given.append(weighting.weights(losses(step), seed=step))
        if weighting.learns:
            weighting.observe(losses(step))
        if (step + 1) % epoch == 0:
            weighting.end_epoch()
    return given


def test_equal_weights_are_one() -> None:
    assert MAKE["equal"]().weights(LOSSES, 0).tolist() == [1.0, 1.0, 1.0]


def test_uncertainty_starts_at_a_half_and_converges_to_half_the_inverse_loss() -> None:
    # Σ (e^-s L + s) / 2 is minimal at s = log L, where the weight e^-s / 2 is 1 / (2 L).
    weighting = LabelUncertaintyWeighting([True] * 3, CPU, lr=0.05)
    assert weighting.weights(LOSSES, 0).tolist() == [0.5, 0.5, 0.5]
    for _ in range(2000):
        weighting.observe(LOSSES)
    assert weighting.weights(LOSSES, 0).tolist() == pytest.approx([0.25, 1.0, 0.5], rel=1e-6)


def test_a_vanishing_distillation_term_keeps_its_weight_with_uncertainty() -> None:
    weighting = LabelUncertaintyWeighting([True, False], CPU, lr=0.05)
    for step in range(2000):
        weighting.observe(torch.tensor([2.0, 0.9**step], dtype=torch.float64))
    assert weighting.weights(LOSSES[:2], 0).tolist() == pytest.approx([0.25, 0.5], rel=1e-6)
    ties = LabelUncertaintyWeighting([False, False], CPU, lr=0.05)
    ties.observe(LOSSES[:2])
    ties.load(ties.state())
    assert ties.weights(LOSSES[:2], 0).tolist() == [0.5, 0.5]


def test_first_adam_step_of_uncertainty_matches_a_hand_calculation() -> None:
    # d/ds = (1 - e^0 L) / 2: s of loss 2 rises, of 0.5 falls, of 1 stays; Adam's first step is lr · sign.
    weighting = LabelUncertaintyWeighting([True] * 3, CPU, lr=0.1)
    weighting.observe(LOSSES)
    by_hand = [0.5 * math.exp(-0.1), 0.5 * math.exp(0.1), 0.5]
    assert weighting.weights(LOSSES, 0).tolist() == pytest.approx(by_hand, rel=1e-6)


def test_soft_optimal_uncertainty_is_the_softmax_of_inverse_losses() -> None:
    # T = 2: exponents 1/4, 1, 1/2.
    raw = [math.exp(0.25), math.exp(1.0), math.exp(0.5)]
    by_hand = [value / sum(raw) for value in raw]
    assert MAKE["uw_so"]().weights(LOSSES, 0).tolist() == pytest.approx(by_hand, rel=1e-12)
    cold = SoftOptimalUncertaintyWeighting(3, CPU, temperature=0.01).weights(LOSSES, 0)
    assert cold.tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)


def test_dynamic_average_weights_slowly_decreasing_terms_more() -> None:
    weighting = MAKE["dwa"]()
    for epoch in ([4.0, 1.0, 1.0], [2.0, 1.0, 2.0]):
        assert weighting.weights(LOSSES, 0).tolist() == pytest.approx([1.0, 1.0, 1.0])
        for share in (0.5, 1.5):  # two steps with the epoch's mean
            weighting.observe(torch.tensor(epoch, dtype=torch.float64) * share)
        weighting.end_epoch()
    raw = [math.exp(r / 2) for r in (0.5, 1.0, 2.0)]
    by_hand = [3 * value / sum(raw) for value in raw]
    assert weighting.weights(LOSSES, 0).tolist() == pytest.approx(by_hand, rel=1e-12)


def test_random_weights_depend_on_the_seed_and_sum_to_one() -> None:
    weighting = MAKE["rlw"]()
    first, again, other = (weighting.weights(LOSSES, seed) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.sum().item() == pytest.approx(1.0)
    normal = torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(first, torch.softmax(normal, 0))


def test_famo_starts_with_inverse_losses_and_raises_slowly_decreasing_terms() -> None:
    weighting = MAKE["famo"]()
    # z is uniform at first, so weights are in proportion 1/2 : 2 : 1 and sum to one.
    assert weighting.weights(LOSSES, 0).tolist() == pytest.approx([1 / 7, 4 / 7, 2 / 7], rel=1e-6)
    after = torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)  # the first has halved, the others are unchanged
    # Gradient of the logits: J δ with δ = (log 2, 0, 0) and J that of a uniform softmax: (2/9, -1/9, -1/9) log 2. The
    # first logit falls and the others rise by the learning rate: Adam's first step.
    z = [math.exp(w) for w in (-0.1, 0.1, 0.1)]
    raw = [a / b for a, b in zip(z, after.tolist(), strict=True)]
    by_hand = [value / sum(raw) for value in raw]
    assert weighting.weights(after, 0).tolist() == pytest.approx(by_hand, rel=1e-6)


class TwoTerms(nn.Module):
    """Two squares of one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([0.3, -0.7], dtype=torch.float64))

    def forward(self) -> Tensor:
        return torch.stack([(self.x - 1).square().sum(), 3 * (self.x[0] + 2 * self.x[1]).square() + 0.2])


def train_with_library(scalarizer: nn.Module, own_lr: float) -> list[float]:
    """Train as in TorchJD's documentation on a single batch, so that FAMO's next losses are those after the step."""
    model = TwoTerms()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    learned = torch.optim.Adam(scalarizer.parameters(), lr=own_lr) if isinstance(scalarizer, UW) else None
    for step in range(12):
        optimizer.zero_grad()
        if learned is not None:
            learned.zero_grad()
        scalarizer(model()).backward()
        optimizer.step()
        if learned is not None:
            learned.step()
        if isinstance(scalarizer, FAMO):
            scalarizer.update(model())
        if isinstance(scalarizer, DWA) and step % 3 == 2:
            scalarizer.step()
    return model.x.tolist()


@pytest.mark.parametrize(
    ("ours", "library"),
    [
        (lambda: LabelUncertaintyWeighting([True] * 2, CPU, lr=0.05), lambda: UW(2).double()),
        (lambda: DynamicWeightAverage(2, CPU, temperature=2.0), lambda: DWA(2.0)),
        (lambda: FastAdaptiveWeighting(2, CPU, lr=0.05), lambda: FAMO(2, lr=0.05).double()),
    ],
    ids=["uncertainty", "dwa", "famo"],
)
def test_weighted_shares_train_like_the_librarys_sum(ours, library) -> None:
    weighting, model = ours(), TwoTerms()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for step in range(12):
        optimizer.zero_grad()
        terms = model()
        weights = weighting.weights(terms.detach(), seed=step)
        for share in (0.25, 0.75):  # like two ranks or micro-batches
            (weights * terms * share).sum().backward(retain_graph=True)
        optimizer.step()
        if weighting.learns:
            weighting.observe(terms.detach())
        if step % 3 == 2:
            weighting.end_epoch()
    torch.testing.assert_close(model.x.tolist(), train_with_library(library(), 0.05), rtol=1e-9, atol=0)


def test_uncertainty_uses_the_gradient_of_its_sum() -> None:
    def total(log_variance: Tensor, terms: Tensor) -> Tensor:
        scalarizer = UW(3).double()
        return torch.func.functional_call(scalarizer, {"log_var": log_variance}, (terms,))

    s = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (s, LOSSES.clone().requires_grad_()))
    scalarizer = UW(3).double()
    with torch.no_grad():
        scalarizer.log_var.copy_(s)
    assert slope(scalarizer, LOSSES).tolist() == pytest.approx((0.5 * torch.exp(-s)).tolist())


@pytest.mark.parametrize("method", MAKE)
@pytest.mark.parametrize("cut", [0, 1, 6, 9])
def test_a_saved_state_resumes_bit_identically(method: str, cut: int) -> None:
    whole = run(MAKE[method](), range(14))
    first = MAKE[method]()
    run(first, range(cut))
    second = MAKE[method]()
    second.load(json.loads(json.dumps(first.state())))
    for a, b in zip(whole[cut:], run(second, range(cut, 14)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"text": 0.22, "tie": 2432.0, "video": 0.5}, ("tie", pytest.approx(2432 / 0.22))),
        ({"text": 0.01, "tie": 0.99}, None),
        ({"text": 0.01, "tie": 1.0}, ("tie", pytest.approx(100.0))),
        ({"text": 10.0, "tie": 1.0}, None),
        ({"text": 0.0, "tie": 1.0}, ("tie", math.inf)),
        ({"text": 0.0, "tie": 0.0}, None),
        ({"video": 1.0, "tie": 1e6}, None),
        ({}, None),
    ],
)
def test_a_hundredfold_weight_is_a_collapse(weights: dict, expected: tuple | None) -> None:
    assert find_collapse(weights, "text") == expected

"""The AMID-like reconstruction: the three properties it is built for, and what its parts leave alone."""

import math

import pytest
import torch
from torch import Tensor, nn

from vadv_dist.objectives.adversary import Adversary, reverse_gradient
from vadv_dist.objectives.amid import AMID, unit
from vadv_dist.objectives.mutual_information import info_nce
from vadv_dist.objectives.outputs import Rows, View

# Weights of the terms by name; others have 0.
Weights = dict[str, float]
TEACHER, SHARED, AUXILIARY, ENTROPY = "amid_teacher", "amid_shared", "amid_auxiliary", "amid_entropy"


def rows_of(label: Tensor, valid: Tensor | None = None) -> Rows:
    valid = torch.ones(len(label)) if valid is None else valid
    count = int(valid.sum())
    return Rows(label, valid, torch.arange(len(label)), None, count, count)


def view(features: Tensor) -> View:
    return View(features[:, 0], features)


def two_layers(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, 16))


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8, 0.95])
def test_bound_of_gaussians_is_close_to_their_mutual_information_and_not_above_it(correlation: float) -> None:
    random, num_rows, width = torch.Generator().manual_seed(1), 128, 2

    def draw() -> tuple[Tensor, Tensor]:
        left = torch.randn(num_rows, width, generator=random)
        noise = torch.randn(num_rows, width, generator=random)
        return left, correlation * left + math.sqrt(1 - correlation**2) * noise

    torch.manual_seed(0)
    left, right, scale = two_layers(width), two_layers(width), nn.Parameter(torch.full((1,), math.log(1 / 0.07)))

    def bound() -> Tensor:
        one, other = draw()
        counts = torch.ones(num_rows, dtype=torch.bool)
        return math.log(num_rows) - info_nce(scale.exp() * unit(left(one)), unit(right(other)), counts)

    adam = torch.optim.Adam([*left.parameters(), *right.parameters(), scale], lr=3e-3)
    for _ in range(500):
        adam.zero_grad()
        (-bound()).backward()
        adam.step()
    with torch.no_grad():
        bounds = torch.stack([bound() for _ in range(100)])
    truth = -width / 2 * math.log(1 - correlation**2)
    error = float(bounds.std()) / 10
    assert float(bounds.mean()) <= truth + 3 * error
    assert float(bounds.mean()) == pytest.approx(truth, rel=0.1, abs=0.02)


def test_bound_is_at_most_the_logarithm_of_the_number_of_rows() -> None:
    # Partners are equal and all other rows are orthogonal: as much as eight rows can tell.
    rows = torch.eye(8)
    loss = info_nce(1000 * rows, rows, torch.ones(8, dtype=torch.bool))
    assert math.log(8) - float(loss) == pytest.approx(math.log(8))
    assert float(info_nce(rows, rows, torch.zeros(8, dtype=torch.bool))) == 0


class Toy:
    """A student that sees s and a video teacher that sees a, of clips labelled s + a; AMID between them.

    Args:
        weights: of the terms.
        seed: of everything.
    """

    def __init__(self, weights: Weights, seed: int, *, steps: int = 600) -> None:
        torch.manual_seed(seed)
        self._random = torch.Generator().manual_seed(seed + 1)
        self.student, self.video = nn.Linear(2, 8), nn.Linear(2, 8)
        self.amid = AMID(teacher_width=8, student_width=8, width=16)
        parameters = [*self.student.parameters(), *self.video.parameters(), *self.amid.parameters()]
        adam = torch.optim.Adam(parameters, lr=3e-3)
        for _ in range(steps):
            video, text, label = self._draw(64)
            terms = self.amid(view(video), view(text), rows_of(label))
            adam.zero_grad()
            torch.stack([weight * terms[name] for name, weight in weights.items()]).sum().backward()
            adam.step()
        with torch.no_grad():
            video, text, self.label = self._draw(2000)
            self.teacher_embedding = unit(self.amid.fusion(torch.cat([video, text], dim=-1)))
            self.student_embedding = unit(self.amid.of_student(text))

    def _draw(self, num_rows: int) -> tuple[Tensor, Tensor, Tensor]:
        s, a, noise, other = torch.randn(4, num_rows, 1, generator=self._random)
        text, video = torch.cat([s, noise], dim=-1), torch.cat([a, other], dim=-1)
        return self.video(video).tanh(), self.student(text).tanh(), (s + a).squeeze(-1)

    @property
    def teacher_knows(self) -> float:
        """Share of the label's variance that the teacher's embedding explains."""
        return 1 - left_open(self.label[:, None], self.teacher_embedding)

    @property
    def student_leaves_open(self) -> float:
        """Share of the variance of the teacher's embedding that the student's does not explain."""
        return left_open(self.teacher_embedding, self.student_embedding)


def left_open(values: Tensor, given: Tensor) -> float:
    """Share of the variance of values that the mean over the ten nearest neighbours does not explain."""
    half = len(values) // 2
    near = torch.cdist(given[half:], given[:half]).topk(10, largest=False).indices
    errors = values[half:] - values[:half][near].mean(dim=1)
    return float(errors.square().sum() / (values[half:] - values[half:].mean(dim=0)).square().sum())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_auxiliary_bound_keeps_the_teacher_as_strong_as_alone(seed: int) -> None:
    alone = Toy({TEACHER: 0.1}, seed).teacher_knows
    weakened = Toy({TEACHER: 0.1, SHARED: 1.0}, seed).teacher_knows
    kept = Toy({TEACHER: 0.1, SHARED: 1.0, AUXILIARY: 1.0}, seed).teacher_knows
    assert alone > 0.95
    assert weakened < 0.8 * alone  # the short cut that the method is made against
    assert kept > 0.95 * alone


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_conditional_entropy_falls(seed: int) -> None:
    before = {TEACHER: 1.0, SHARED: 1.0, AUXILIARY: 1.0}
    without, with_it = Toy(before, seed), Toy({**before, ENTROPY: 1.0}, seed)
    assert with_it.student_leaves_open < 0.9 * without.student_leaves_open
    assert with_it.teacher_knows > 0.9


def test_adversary_climbs_where_everything_else_descends() -> None:
    torch.manual_seed(0)
    adversary = Adversary(width=4, lr=1.0)
    embedding, answer = torch.randn(5, 4, requires_grad=True), unit(torch.randn(5, 4))

    def plain() -> Tensor:
        found = nn.functional.normalize(adversary.layers(embedding), dim=-1)
        return (found - answer).square().sum()

    parameters = list(adversary.parameters())
    expected = torch.autograd.grad(plain(), [embedding, *parameters])
    loss = (adversary(embedding) - answer).square().sum()
    assert torch.equal(loss.detach(), plain().detach())
    found = torch.autograd.grad(loss, [embedding, *parameters])
    torch.testing.assert_close(found[0], expected[0])
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, -theirs)
    assert float(reverse_gradient(torch.tensor(2.0))) == 2.0


@pytest.mark.parametrize("num_classes", [1, 3])
def test_rows_that_do_not_count_change_nothing(num_classes: int) -> None:
    torch.manual_seed(0)
    amid = AMID(teacher_width=6, student_width=5, num_classes=num_classes, width=8)
    video, text, label = torch.randn(7, 6), torch.randn(7, 5), torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 1.0])
    expected = amid(view(video[:5]), view(text[:5]), rows_of(label[:5]))
    assert set(expected) == {term.name for term in amid.described} == {TEACHER, SHARED, AUXILIARY, ENTROPY}
    video[5:], text[5:] = float("nan"), float("inf")
    inputs = (video.requires_grad_(), text.requires_grad_())
    valid = torch.tensor([1.0] * 5 + [0.0] * 2)
    found = amid(view(video), view(text), rows_of(label, valid))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    gradients = torch.autograd.grad(torch.stack([*found.values()]).sum(), inputs)
    assert all(gradient[5:].eq(0).all() and gradient.isfinite().all() for gradient in gradients)


def test_only_terms_that_say_so_train_the_student() -> None:
    torch.manual_seed(0)
    amid = AMID(teacher_width=6, student_width=5, width=8)
    text = torch.randn(4, 5, requires_grad=True)
    terms = amid(view(torch.randn(4, 6)), view(text), rows_of(torch.randn(4)))
    for term in amid.described:
        (gradient,) = torch.autograd.grad(terms[term.name], text, retain_graph=True, allow_unused=True)
        reaches = gradient is not None and bool(gradient.abs().sum() > 0)
        assert reaches == term.trains_student == term.distils

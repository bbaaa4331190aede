"""Losses of rival objectives against torchdistill, mdistiller's formulas in another form, and calculations by hand."""

import math
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from vadv_dist.objectives.cckd import correlation_distance
from vadv_dist.objectives.crd import contrastive_loss, first_scale, scores
from vadv_dist.objectives.dist import inter_class, intra_class
from vadv_dist.objectives.dkd import non_target_divergence, target_divergence
from vadv_dist.objectives.fitnet import hint_distance
from vadv_dist.objectives.kd import softened_divergence
from vadv_dist.objectives.pkt import neighbour_divergence
from vadv_dist.objectives.rkd import angle_loss, distance_loss
from vadv_dist.objectives.sp import similarity_distance
from vadv_dist.objectives.vid import negative_log_likelihood

ALL = torch.ones(7, dtype=torch.bool)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """torchdistill's losses; its package is installed without what its models need."""
    return pytest.importorskip("torchdistill.losses.mid_level")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TEACHER, STUDENT = random(7, 5, seed=1), random(7, 3, seed=2)
TEACHER_LOGITS, STUDENT_LOGITS = 3 * random(7, 4, seed=3), 3 * random(7, 4, seed=4)


def theirs(loss: Any, teacher: Any, student: Any) -> Tensor:
    """Call a loss of torchdistill, which finds its inputs by the names of modules."""
    return loss({"m": {"output": student}}, {"m": {"output": teacher}})


def pair(name: str) -> dict[str, str]:
    return {f"{who}_{name}": "m" for who in ("student", "teacher")}


MODULES = {
    f"{who}_module_{what}": value for who in ("student", "teacher") for what, value in (("path", "m"), ("io", "output"))
}


def same(ours: Tensor, expected: Tensor | float) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(expected, dtype=ours.dtype), rtol=1e-5, atol=1e-9)


def test_kd(reference: ModuleType) -> None:
    loss = reference.KDLoss(**MODULES, temperature=4.0, alpha=0.0)
    expected = theirs(loss, TEACHER_LOGITS, STUDENT_LOGITS)
    same(softened_divergence(TEACHER_LOGITS, STUDENT_LOGITS, 4.0).mean(), expected * 16)
    # By hand: teacher (3/4, 1/4), student (1/2, 1/2).
    hand = softened_divergence(torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2), 2.0)
    same(hand, [4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))])


def test_kd_of_a_single_logit_is_constant() -> None:
    student = random(7, 1).requires_grad_()
    loss = softened_divergence(random(7, 1, seed=1), student, 4.0).sum()
    assert loss.item() == 0
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0


def mdistiller(teacher: Tensor, student: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Formulas of megvii-research/mdistiller (mdistiller/distillers/DKD.py): both parts from probabilities."""
    hot = torch.nn.functional.one_hot(target, teacher.shape[1]).bool()
    parts = []
    for logits in (teacher, student):
        share = (logits / temperature).softmax(1)
        parts.append(torch.stack([share[hot], (share * ~hot).sum(1)], 1))
    two_way = (parts[0] * (parts[0] / parts[1]).log()).sum() * temperature**2 / len(target)
    left, right = ((logits / temperature - 1000 * hot).log_softmax(1) for logits in (teacher, student))
    return two_way, (left.exp() * (left - right)).sum() * temperature**2 / len(target)


def test_dkd() -> None:
    target = torch.tensor([0, 3, 1, 2, 0, 3, 3])
    two_way, others = mdistiller(TEACHER_LOGITS, STUDENT_LOGITS, target, 4.0)
    arguments = TEACHER_LOGITS, STUDENT_LOGITS, target, 4.0
    same(target_divergence(*arguments).mean(), two_way)
    same(non_target_divergence(*arguments).mean(), others)
    # Eq. 6 of the paper: KD is TCKD plus NCKD, weighted by the teacher's probability of the other classes.
    other_share = 1 - (TEACHER_LOGITS / 4).softmax(1).gather(1, target[:, None]).squeeze(1)
    whole = target_divergence(*arguments) + other_share * non_target_divergence(*arguments)
    same(whole, softened_divergence(TEACHER_LOGITS, STUDENT_LOGITS, 4.0))


def test_dkd_of_two_classes_is_kd() -> None:
    teacher, student, target = TEACHER_LOGITS[:, :2], STUDENT_LOGITS[:, :2], torch.tensor([0, 1, 1, 0, 0, 1, 0])
    same(target_divergence(teacher, student, target, 3.0), softened_divergence(teacher, student, 3.0))
    assert non_target_divergence(teacher, student, target, 3.0).abs().max() == 0


def test_fitnet() -> None:
    same(hint_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])), [2.5])
    regressed = random(7, 5, seed=5)
    same(hint_distance(TEACHER, regressed).mean(), torch.nn.functional.mse_loss(TEACHER, regressed))


def test_vid(reference: ModuleType) -> None:
    mean, variance = random(7, 5, seed=5), random(5, seed=6).exp()
    sides = {"student": {"io": "output", "path": "m"}, "teacher": {"io": "output", "path": "m"}}
    expected = theirs(reference.VIDLoss({"features": sides}), TEACHER, (mean, variance))
    same(negative_log_likelihood(TEACHER, mean, variance).mean(), expected)
    hand = negative_log_likelihood(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([4.0, 1.0]))
    same(hand, [0.5 * (4 / 4 + math.log(4)) / 2])


def test_pkt(reference: ModuleType) -> None:
    expected = theirs(reference.PKTLoss(**MODULES), TEACHER.clone(), STUDENT.clone())
    same(neighbour_divergence(TEACHER, STUDENT, ALL), expected)
    # By hand: the teacher's rows are opposite, (1, 0) and (0, 1); the student's are equal, (1/2, 1/2) twice.
    opposite, equal = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([[2.0], [3.0]]).double()
    same(neighbour_divergence(opposite, equal, ALL[:2]), 2 * math.log(2) / 4)


def test_sp(reference: ModuleType) -> None:
    loss = reference.SPKDLoss(**pair("output_path"), reduction="batchmean")
    # torchdistill passes 1 as the norm's order; the paper and the other codes take the Euclidean norm.
    loss.matmul_and_normalize = lambda features: torch.nn.functional.normalize(features @ features.T)
    same(similarity_distance(TEACHER, STUDENT, ALL), theirs(loss, TEACHER, STUDENT))
    # By hand: Gram matrices with rows of norm 1 are the identity, and 1 / √2 everywhere.
    hand = similarity_distance(torch.eye(2).double(), torch.ones(2, 1).double(), ALL[:2])
    same(hand, (2 * (1 - 0.5**0.5) ** 2 + 2 * 0.5) / 4)


def test_cckd(reference: ModuleType) -> None:
    kernel = {"type": "gaussian", "gamma": 0.4, "max_p": 2}
    loss = reference.CCKDLoss(
        student_linear_path="m", teacher_linear_path="m", kernel_config=kernel, reduction="batchmean"
    )
    unit = [torch.nn.functional.normalize(features, dim=1) for features in (TEACHER, STUDENT)]
    distance = theirs(loss, *unit) * 7**2  # not squared there
    same(correlation_distance(TEACHER, STUDENT, ALL, gamma=0.4, order=2), distance**2 / 7**2)


def test_cckd_approaches_the_gaussian_kernel() -> None:
    squares = []
    for features in (TEACHER, STUDENT):
        unit = torch.nn.functional.normalize(features, dim=1)
        squares.append((-0.4 * torch.cdist(unit, unit).square()).exp())
    expected = (squares[0] - squares[1]).square().mean()
    same(correlation_distance(TEACHER, STUDENT, ALL, gamma=0.4, order=20), expected)


def test_rkd(reference: ModuleType) -> None:
    loss = reference.RKDLoss("m", "m", dist_factor=1.0, angle_factor=1.0, reduction="mean")
    same(distance_loss(TEACHER, STUDENT, ALL), loss.compute_rkd_distance_loss(TEACHER, STUDENT))
    same(angle_loss(TEACHER, STUDENT, ALL), loss.compute_rkd_angle_loss(TEACHER, STUDENT))
    # By hand, rows on a line: distances (1, 2, 1) and (1, 4, 3) over their means 4/3 and 8/3; Huber loss of
    # (3/4, 3/2, 3/4) and (3/8, 3/2, 9/8). Every pair counts twice.
    line = [torch.tensor([[0.0], [1.0], [end]]).double() for end in (2.0, 4.0)]
    same(distance_loss(*line, ALL[:3]), 2 * (0.5 * (3 / 8) ** 2 + 0 + 0.5 * (3 / 8) ** 2) / 9)
    # Row 0 sees the others at cosine 1 or -1: they are on one side of it, or on two.
    middle = torch.tensor([[1.0], [0.0], [2.0]]).double()
    # Cosines of 0, 1 and 2 as vertex: (1, -1, 1) against (-1, 1, 1); Huber loss of 2 is 1.5. Every pair counts twice.
    same(angle_loss(line[0], middle, ALL[:3]), 2 * (1.5 + 1.5) / 27)


def test_dist(reference: ModuleType) -> None:
    loss = reference.DISTLoss(**MODULES, beta=1.0, gamma=0.0, tau=2.0)
    teacher, student = ((logits / 2).softmax(1) for logits in (TEACHER_LOGITS, STUDENT_LOGITS))
    same(4 * inter_class(teacher, student).mean(), theirs(loss, TEACHER_LOGITS, STUDENT_LOGITS))
    loss = reference.DISTLoss(**MODULES, beta=0.0, gamma=1.0, tau=2.0)
    same(4 * intra_class(teacher, student, ALL), theirs(loss, TEACHER_LOGITS, STUDENT_LOGITS))


def test_dist_of_a_regression_logit_is_one_minus_pearson() -> None:
    teacher, student = TEACHER_LOGITS[:, :1], STUDENT_LOGITS[:, :1]
    pearson = torch.corrcoef(torch.cat([teacher, student], 1).T)[0, 1]
    same(intra_class(teacher, student, ALL), 1 - pearson)


@pytest.mark.parametrize("num_classes", [1, 2])
def test_dist_within_rows_teaches_nothing_below_three_classes(num_classes: int) -> None:
    student = STUDENT_LOGITS[:, :num_classes].clone().requires_grad_()
    loss = inter_class(TEACHER_LOGITS[:, :num_classes].softmax(1), student.softmax(1)).sum()
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-12


def test_crd(reference: ModuleType) -> None:
    """The student's part, as torchdistill computes it with the same negatives for every anchor."""
    num_rows, negatives = 20, 6
    unit = [
        torch.nn.functional.normalize(random(*shape, seed=seed), dim=1) for shape, seed in (((7, 5), 1), ((7, 5), 2))
    ]
    loss = reference.CRDLoss.__new__(reference.CRDLoss)
    torch.nn.Module.__init__(loss)
    loss.eps, loss.num_samples, loss.num_negative_samples = 1e-7, num_rows, negatives
    loss.register_buffer("params", torch.tensor([negatives, 0.07, -1, -1, 0.5], dtype=torch.float64))
    for number, name in enumerate(("memory_v1", "memory_v2")):
        loss.register_buffer(name, torch.nn.functional.normalize(random(num_rows, 5, seed=3 + number), dim=1))
    stored = loss.memory_v2.clone()
    positive, drawn = torch.arange(7) * 2, torch.tensor([3, 8, 19, 1, 8, 0])
    chosen = torch.cat([positive[:, None], drawn.expand(7, -1)], 1)
    against_teacher, _ = loss.contrast_memory(unit[0], unit[1], positive, chosen)
    expected = loss.compute_contrast_loss(against_teacher)

    ours = scores(unit[0], stored[positive], stored[drawn], 0.07)
    scale = first_scale(ours, ALL, num_rows)
    same(scale, loss.params[2])
    same(contrastive_loss(ours, ALL, scale, num_rows), expected.squeeze())


LOSSES = {
    "pkt": neighbour_divergence,
    "sp": similarity_distance,
    "cckd": lambda *given: correlation_distance(*given, gamma=0.4, order=2),
    "rkd_distance": distance_loss,
    "rkd_angle": angle_loss,
    "dist_intra": lambda teacher, student, counts: intra_class(teacher[:, :3], student, counts),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("num_counted", [0, 1, 2, 5])
def test_rows_that_do_not_count_change_neither_loss_nor_gradient(name: str, num_counted: int) -> None:
    counts = torch.zeros(7, dtype=torch.bool)
    counts[torch.tensor([5, 1, 6, 0, 3])[:num_counted]] = True
    student = STUDENT.clone()
    student[~counts] = float("nan")
    student.requires_grad_()
    loss = LOSSES[name](torch.where(counts[:, None], TEACHER, float("nan")), student, counts)
    gradient = torch.autograd.grad(loss, student)[0]
    assert gradient[~counts].abs().sum() == 0
    if num_counted == 0:
        assert loss.item() == 0
        return
    alone = STUDENT[counts].requires_grad_()
    expected = LOSSES[name](TEACHER[counts], alone, ALL[:num_counted])
    same(loss, expected.detach())
    same(gradient[counts], torch.autograd.grad(expected, alone)[0])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    counts = torch.tensor([1, 0, 1, 1, 1, 0, 1]).bool()
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: LOSSES[name](TEACHER, values, counts), student)


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_like_the_teacher_has_no_loss(name: str) -> None:
    assert LOSSES[name](TEACHER[:, :3], 2 * TEACHER[:, :3], ALL).abs() < 1e-3

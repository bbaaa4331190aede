import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vadv_dist.objectives.base import weighted_total
from vadv_dist.objectives.outputs import TeacherStudentOutputs
from vadv_dist.objectives.step_distillation import (
    TERMS,
    StepDistillation,
    class_cross_entropy,
    loss_terms,
    mean_squared_error,
)

NAMES = [term.name for term in TERMS]
WEIGHTS = dict(zip(NAMES, (1.0, 10.0, 1.0, 10.0, 1.0), strict=True))
ALL = torch.ones(2)


def two_rows() -> tuple[TeacherStudentOutputs, Tensor]:
    """Two rows whose terms are calculated by hand in the tests."""
    outputs = TeacherStudentOutputs(
        text_logit=torch.tensor([1.0, -1.0]),
        video_logit=torch.tensor([2.0, 0.5]),
        prompt_logit=torch.tensor([0.0, 1.5]),
        class_logits=torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]),
    )
    return outputs, torch.tensor([1.5, -2.0])


def random_rows(num_rows: int, dtype: torch.dtype = torch.float64) -> tuple[TeacherStudentOutputs, Tensor]:
    generator = torch.Generator().manual_seed(num_rows)

    def logits(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    outputs = TeacherStudentOutputs(logits(num_rows), logits(num_rows), logits(num_rows), logits(num_rows, 2))
    return outputs, torch.randn(num_rows, generator=generator, dtype=dtype)


def leaves(outputs: TeacherStudentOutputs) -> list[Tensor]:
    values = (outputs.text_logit, outputs.video_logit, outputs.prompt_logit, outputs.class_logits)
    return [value for value in values if value is not None]


@pytest.mark.parametrize(
    ("term", "by_hand"),
    [
        ("video_regression", (0.5**2 + 2.5**2) / 2),  # eq. 10: 3.25
        ("text_regression", (0.5**2 + 1.0**2) / 2),  # eq. 11: 0.625
        # eq. 12: label 1.5 is class 1, p = 3/4; label -2 is class 0, p = 1/2
        ("video_classification", (math.log(4 / 3) + math.log(2)) / 2),
        ("prompt_to_video", (2.0**2 + 1.0**2) / 2),  # eq. 13: 2.5
        ("video_to_text", (1.0**2 + 1.5**2) / 2),  # eq. 14: 1.625
    ],
)
def test_term_equals_its_equation(term: str, by_hand: float) -> None:
    outputs, label = two_rows()
    terms = loss_terms(outputs, label, valid_B=ALL, has_video_B=ALL, num_rows=2, num_video_rows=2)
    assert terms[term].item() == pytest.approx(by_hand, rel=1e-6)


def test_total_weights_the_terms_as_in_equation_15() -> None:
    outputs, label = two_rows()
    terms = loss_terms(outputs, label, valid_B=ALL, has_video_B=ALL, num_rows=2, num_video_rows=2)
    by_hand = 1 * 3.25 + 10 * 0.625 + 1 * (math.log(4 / 3) + math.log(2)) / 2 + 10 * 2.5 + 1 * 1.625
    assert list(terms) == NAMES
    assert weighted_total(terms, WEIGHTS).item() == pytest.approx(by_hand, rel=1e-6)  # 36.615...


def test_the_direct_route_ties_the_prompt_to_the_text_logit() -> None:
    outputs, label = two_rows()
    terms = loss_terms(outputs, label, valid_B=ALL, has_video_B=ALL, num_rows=2, num_video_rows=2, direct=True)
    assert list(terms) == [*NAMES[:3], "prompt_to_text", "video_to_text"]
    assert terms["prompt_to_text"].item() == pytest.approx((1.0**2 + 2.5**2) / 2, rel=1e-6)  # 3.625
    assert terms["video_to_text"].item() == pytest.approx(1.625, rel=1e-6)
    weights = {**WEIGHTS, "prompt_to_text": WEIGHTS["prompt_to_video"]}
    by_hand = 1 * 3.25 + 10 * 0.625 + 1 * (math.log(4 / 3) + math.log(2)) / 2 + 10 * 3.625 + 1 * 1.625
    assert weighted_total(terms, weights).item() == pytest.approx(by_hand, rel=1e-6)
    described = StepDistillation(direct=True).described
    assert [(term.name, term.weight) for term in described[3:]] == [
        ("prompt_to_text", "delta"),
        ("video_to_text", "psi"),
    ]
    assert all(term.distils and term.trains_student for term in described[3:])


@pytest.mark.parametrize("detach_targets", [False, True])
def test_on_the_direct_route_the_prompt_logit_learns_from_the_student(detach_targets: bool) -> None:
    outputs, label = two_rows()
    outputs = TeacherStudentOutputs(*(value.requires_grad_() for value in leaves(outputs)))
    terms = loss_terms(
        outputs,
        label,
        valid_B=ALL,
        has_video_B=ALL,
        num_rows=2,
        num_video_rows=2,
        direct=True,
        detach_targets=detach_targets,
    )
    terms["prompt_to_text"].backward()
    # d/dt of (p - t)² / 2 rows is t - p, and d/dp is p - t.
    assert outputs.text_logit.grad.tolist() == [1.0, -2.5]
    assert outputs.prompt_logit.grad.tolist() == [-1.0, 2.5]
    assert outputs.video_logit.grad is None


def test_zero_is_a_positive_label() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])
    entropy = class_cross_entropy(logits, torch.zeros(1), counts_B=torch.ones(1, dtype=torch.bool), num_rows=1)
    assert entropy.item() == pytest.approx(math.log(4 / 3))


@pytest.mark.parametrize("term", NAMES)
def test_gradient_of_each_term_is_correct(term: str) -> None:
    outputs, label = random_rows(4)
    valid = torch.tensor([1, 1, 1, 0])
    has_video = torch.tensor([1, 0, 1, 1])

    def of_logits(text: Tensor, video: Tensor, prompt: Tensor, classes: Tensor) -> Tensor:
        return loss_terms(
            TeacherStudentOutputs(text, video, prompt, classes),
            label,
            valid_B=valid,
            has_video_B=has_video,
            num_rows=3,
            num_video_rows=2,
        )[term]

    assert torch.autograd.gradcheck(of_logits, leaves(outputs))


def test_detached_targets_affect_only_step_2() -> None:
    def moved(term: str, detach_targets: bool) -> list[bool]:
        outputs, label = random_rows(3)
        terms = loss_terms(
            outputs,
            label,
            valid_B=torch.ones(3),
            has_video_B=None,
            num_rows=3,
            num_video_rows=3,
            detach_targets=detach_targets,
        )
        terms[term].backward()
        return [value.grad is not None for value in leaves(outputs)]

    assert moved("prompt_to_video", detach_targets=False) == [False, True, True, False]
    assert moved("prompt_to_video", detach_targets=True) == [False, True, True, False]
    assert moved("video_to_text", detach_targets=False) == [True, True, False, False]
    assert moved("video_to_text", detach_targets=True) == [True, False, False, False]


@pytest.mark.parametrize("filler", [math.nan, math.inf, 1e30])
def test_filler_and_rows_without_video_do_not_matter(filler: float) -> None:
    outputs, label = random_rows(2)
    expected = loss_terms(outputs, label, valid_B=ALL, has_video_B=ALL, num_rows=2, num_video_rows=2)
    expected_grad = torch.autograd.grad(weighted_total(expected, WEIGHTS), leaves(outputs))

    def padded(values: Tensor) -> Tensor:
        rest = torch.full((1, *values.shape[1:]), filler, dtype=values.dtype)
        return torch.cat([values.detach(), rest]).requires_grad_()

    more = TeacherStudentOutputs(*[padded(value) for value in leaves(outputs)])
    more_label = torch.cat([label, torch.full((1,), filler, dtype=label.dtype)])
    terms = loss_terms(
        more,
        more_label,
        valid_B=torch.tensor([1, 1, 0]),
        has_video_B=torch.ones(3),
        num_rows=2,
        num_video_rows=2,
    )
    total = weighted_total(terms, WEIGHTS)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {name: term.item() for name, term in expected.items()}
    )
    for grad, reference in zip(torch.autograd.grad(total, leaves(more)), expected_grad, strict=True):
        torch.testing.assert_close(grad[:2], reference)
        assert not grad[2].any()


def test_a_row_without_video_counts_only_for_the_text() -> None:
    outputs, label = two_rows()
    outputs = replace(outputs, video_logit=torch.tensor([2.0, math.nan]))
    has_video = torch.tensor([1.0, 0.0])
    terms = loss_terms(outputs, label, valid_B=ALL, has_video_B=has_video, num_rows=2, num_video_rows=1)
    assert terms["text_regression"].item() == pytest.approx(0.625)
    assert terms["video_regression"].item() == pytest.approx(0.25)
    assert terms["video_classification"].item() == pytest.approx(math.log(4 / 3))
    assert terms["prompt_to_video"].item() == pytest.approx(4.0)
    assert terms["video_to_text"].item() == pytest.approx(1.0)


def test_a_batch_without_any_video_is_finite() -> None:
    outputs, label = two_rows()
    terms = loss_terms(outputs, label, valid_B=ALL, has_video_B=torch.zeros(2), num_rows=2, num_video_rows=1)
    assert weighted_total(terms, WEIGHTS).item() == pytest.approx(6.25)  # 10 · 0.625


def test_shares_of_two_ranks_add_up_to_the_whole_batch() -> None:
    outputs, label = random_rows(7)
    valid = torch.tensor([1, 1, 1, 1, 1, 1, 0])
    has_video = torch.tensor([1, 0, 1, 1, 0, 1, 1])
    shared = {"num_rows": 6, "num_video_rows": 4}
    whole = loss_terms(outputs, label, valid_B=valid, has_video_B=has_video, **shared)
    whole_grad = torch.autograd.grad(weighted_total(whole, WEIGHTS), leaves(outputs))

    shares = []
    for rank in (slice(0, 3), slice(3, 7)):
        part = TeacherStudentOutputs(*[value[rank] for value in leaves(outputs)])
        shares.append(loss_terms(part, label[rank], valid_B=valid[rank], has_video_B=has_video[rank], **shared))
    for name, term in whole.items():
        torch.testing.assert_close(shares[0][name] + shares[1][name], term)
    both = weighted_total(shares[0], WEIGHTS) + weighted_total(shares[1], WEIGHTS)
    for grad, reference in zip(torch.autograd.grad(both, leaves(outputs)), whole_grad, strict=True):
        torch.testing.assert_close(grad, reference)


def without(*names: str) -> Callable[[TeacherStudentOutputs], TeacherStudentOutputs]:
    return lambda outputs: replace(outputs, **dict.fromkeys(names))


@pytest.mark.parametrize(
    ("change", "switches", "names"),
    [
        (without("video_logit", "prompt_logit", "class_logits"), {}, {"text_regression"}),
        (without("prompt_logit", "class_logits"), {}, {"video_regression", "text_regression", "video_to_text"}),
        (without(), {"step1": False}, set(NAMES) - {"prompt_to_video"}),
        (without(), {"step2": False}, set(NAMES) - {"video_to_text"}),
    ],
)
def test_only_existing_terms_are_returned(
    change: Callable[[TeacherStudentOutputs], TeacherStudentOutputs], switches: dict[str, bool], names: set[str]
) -> None:
    outputs, label = two_rows()
    terms = loss_terms(change(outputs), label, valid_B=ALL, has_video_B=None, num_rows=2, num_video_rows=2, **switches)
    assert set(terms) == names


def test_terms_of_half_precision_logits_are_summed_in_fp32() -> None:
    left, right = torch.full((2,), 300.0, dtype=torch.float16), torch.zeros(2, dtype=torch.float16)
    distance = mean_squared_error(left, right, counts_B=ALL.bool(), num_rows=2)
    assert distance.dtype == torch.float32
    assert distance.item() == 90000.0  # beyond float16


def test_counts_can_be_tensors() -> None:
    outputs, label = two_rows()
    two = torch.tensor(2)
    terms = loss_terms(outputs, label, valid_B=ALL, has_video_B=ALL, num_rows=two, num_video_rows=two)
    assert terms["prompt_to_video"].item() == pytest.approx(2.5)


def test_logits_of_another_length_are_refused() -> None:
    outputs, label = two_rows()
    wrong = replace(outputs, text_logit=torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"text_logit has shape \[2, 1\], but the labels have \[2\]"):
        loss_terms(wrong, label, valid_B=ALL, has_video_B=ALL, num_rows=2, num_video_rows=2)


def test_the_threshold_decides_the_class_of_a_label() -> None:
    label = torch.tensor([1.0, 2.9, 3.0, 5.0])
    logits = torch.tensor([[0.0, 2.0]]).repeat(4, 1)
    counts = torch.ones(4, dtype=torch.bool)
    found = class_cross_entropy(logits, label, counts_B=counts, num_rows=4, threshold=3.0)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(found, expected)

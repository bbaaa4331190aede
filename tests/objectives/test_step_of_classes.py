"""The five-term objective on labels that are classes, against torch's own losses and a calculation by hand."""

import math

import pytest
import torch
from torch import nn

from vadv_dist.objectives.kd import KD
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs
from vadv_dist.objectives.rival_objective import RivalObjective
from vadv_dist.objectives.step_distillation import StepDistillation, loss_terms, supervised_terms

ALL = torch.ones(2)
LABEL = torch.tensor([2.0, 0.0])


def outputs() -> TeacherStudentOutputs:
    generator = torch.Generator().manual_seed(1)
    return TeacherStudentOutputs(*(torch.randn(2, 3, generator=generator).requires_grad_() for _ in range(4)))


def rows() -> Rows:
    return Rows(LABEL, ALL, torch.arange(2), None, 2, 2)


def test_supervised_terms_are_cross_entropies_and_steps_squared_distances_of_logits() -> None:
    given = outputs()
    terms = StepDistillation(threshold=None)(given, rows())
    assert list(terms) == ["video_class", "text_class", "prompt_class", "prompt_to_video", "video_to_text"]
    for name, logit in (
        ("video_class", given.video_logit),
        ("text_class", given.text_logit),
        ("prompt_class", given.class_logits),
    ):
        torch.testing.assert_close(terms[name], nn.functional.cross_entropy(logit, LABEL.long()))
    torch.testing.assert_close(terms["prompt_to_video"], nn.functional.mse_loss(given.prompt_logit, given.video_logit))
    torch.testing.assert_close(terms["video_to_text"], nn.functional.mse_loss(given.video_logit, given.text_logit))


def test_two_classes_by_hand() -> None:
    logit = torch.tensor([[0.0, math.log(3.0)]])
    given = TeacherStudentOutputs(text_logit=logit)
    (term,) = loss_terms(
        given, torch.ones(1), valid_B=ALL[:1], has_video_B=None, num_rows=1, num_video_rows=1, threshold=None
    ).values()
    assert float(term) == pytest.approx(math.log(4 / 3))


def test_weights_of_the_paper_keep_their_names() -> None:
    for threshold in (0.0, None):
        assert [term.weight for term in supervised_terms(threshold)] == ["alpha", "beta", "gamma"]
    alone = StepDistillation(has_teacher=False, threshold=None)
    assert [term.name for term in alone.described] == ["text_class"]
    direct = StepDistillation(direct=True, threshold=None)
    assert list(direct(outputs(), rows())) == [term.name for term in direct.described]


def test_clips_without_video_and_filler_count_for_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = [torch.randn(4, 3, generator=generator) for _ in range(4)]
    label = torch.tensor([1.0, 2.0, 0.0, 0.0])
    valid, has_video = torch.tensor([1.0, 1, 1, 0]), torch.tensor([1.0, 0, 1, 0])
    for values in logits[1:]:
        values[1] = float("nan")
    for values in logits:
        values[3] = float("nan")
        values.requires_grad_()
    terms = StepDistillation(threshold=None)(
        TeacherStudentOutputs(*logits), Rows(label, valid, torch.arange(4), has_video, 3, 2)
    )
    kept = torch.tensor([0, 2])
    torch.testing.assert_close(terms["video_class"], nn.functional.cross_entropy(logits[1][kept], label[kept].long()))
    torch.testing.assert_close(terms["text_class"], nn.functional.cross_entropy(logits[0][:3], label[:3].long()))
    torch.stack(list(terms.values())).sum().backward()
    assert all(torch.isfinite(values.grad).all() for values in logits)


def test_a_logit_of_another_form_is_refused() -> None:
    wrong = TeacherStudentOutputs(text_logit=torch.zeros(2))
    with pytest.raises(ValueError, match="text_logit has shape"):
        loss_terms(wrong, LABEL, valid_B=ALL, has_video_B=None, num_rows=2, num_video_rows=2, threshold=None)
    with pytest.raises(ValueError, match="text_logit has shape"):
        loss_terms(outputs(), LABEL, valid_B=ALL, has_video_B=None, num_rows=2, num_video_rows=2)


def test_knowledge_distillation_compares_the_video_logit_with_the_text_logit() -> None:
    given = outputs()
    terms = RivalObjective(KD(temperature=2.0), has_prompts=True, threshold=None)(given, rows())
    expected = 4 * nn.functional.kl_div(
        (given.text_logit / 2).log_softmax(1), (given.video_logit / 2).softmax(1), reduction="batchmean"
    )
    torch.testing.assert_close(terms["kd"], expected)

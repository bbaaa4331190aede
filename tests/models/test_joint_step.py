"""Teacher, student and objective together: requirements of data-parallel training and CUDA graphs."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vadv_dist.models import Teacher, TextStudent
from vadv_dist.objectives import TeacherStudentOutputs, loss_terms, weighted_total
from vadv_dist.objectives.step_distillation import TERMS

WEIGHTS = dict(zip((term.name for term in TERMS), (1.0, 10.0, 1.0, 10.0, 1.0), strict=True))
ENCODERS = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}


class Joint(nn.Module):
    def __init__(self, encoder: str = "bert", gradient_checkpointing: bool = False, **changes: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = ENCODERS[encoder](
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=0,
        )
        model = transformers.AutoModel.from_config(config, add_pooling_layer=False)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.student = TextStudent(model, hidden=8, pooling="mean", dropout=0.0)
        arguments: dict[str, Any] = {"visual_shape": (3, 2, 12), "face_shape": (5, 8), "prompting": "video"}
        self.teacher = Teacher(
            **{**arguments, **changes}, width=16, hidden=8, heads=4, cct_layers=1, mit_layers=1, prompt_layers=1,
            prompt_alpha=0.1, similarity="dot",
        )  # fmt: skip

    def forward(self, batch: dict[str, Tensor], rows: slice = slice(None), **switches: bool) -> dict[str, Tensor]:
        mine = {name: values[rows] for name, values in batch.items()}
        text_logit = self.student(mine["input_ids"], mine["attention_mask"])
        seen = self.teacher(**{name: mine[name] for name in ("visual", "face", "has_visual", "has_face")})
        return loss_terms(
            TeacherStudentOutputs(text_logit, seen.video_logit, seen.prompt_logit, seen.class_logits),
            mine["label"],
            valid_B=mine["valid"],
            has_video_B=mine["has_visual"],
            num_rows=5,
            num_video_rows=4,
            **switches,
        )


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Five real rows, one without video, and a filler row."""
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(3, 40, (6, 7)),
        "attention_mask": (torch.arange(7) < torch.tensor([7, 4, 1, 5, 2, 1])[:, None]).long(),
        "visual": torch.randn(6, 3, 2, 12).half(),
        "face": torch.rand(6, 5, 8).half(),
        "has_visual": torch.tensor([1, 1, 0, 1, 1, 0]),
        "has_face": torch.tensor([1, 1, 1, 1, 0, 0]),
        "label": torch.tensor([-3.0, 0.0, 1.4, -0.2, 3.0, 0.0]),
        "valid": torch.tensor([1, 1, 1, 1, 1, 0]),
    }


@pytest.mark.parametrize(
    ("changes", "switches", "silent"),
    [
        ({}, {}, set()),
        ({"face_shape": None}, {}, set()),
        ({"visual_shape": None, "prompting": "none"}, {}, set()),
        ({"visual_shape": None, "prompting": "static"}, {}, set()),
        ({"prompting": "static"}, {"step1": False}, {"teacher.prompt_head"}),
        ({"prompting": "none"}, {}, set()),
        ({}, {"step2": False}, set()),
        ({}, {"step1": False}, {"teacher.prompt_head"}),
        ({}, {"step1": False, "step2": False}, {"teacher.prompt_head"}),
        ({}, {"detach_targets": True}, set()),
    ],
)
def test_only_the_prompt_head_can_lack_a_gradient(
    batch: dict[str, Tensor], changes: dict[str, Any], switches: dict[str, bool], silent: set[str]
) -> None:
    model = Joint(**changes)
    weighted_total(model(batch, **switches), WEIGHTS).backward()
    found = {".".join(name.split(".")[:2]) for name, parameter in model.named_parameters() if parameter.grad is None}
    assert found == silent
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_gradients_of_two_ranks_sum_to_that_of_the_whole_batch(batch: dict[str, Tensor]) -> None:
    model = Joint().double()
    whole = model(batch)
    weighted_total(whole, WEIGHTS).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    shares = [model(batch, rows) for rows in (slice(0, 2), slice(2, 6))]
    for share in shares:
        weighted_total(share, WEIGHTS).backward()
    for name, term in whole.items():
        torch.testing.assert_close(shares[0][name] + shares[1][name], term)
    for parameter, reference in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, reference)


class Questions(TorchDispatchMode):
    """Records each value that Python reads from a tensor, by `.item()` or by a branch."""

    asked = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.asked += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_step_does_not_synchronise_with_the_device(batch: dict[str, Tensor], encoder: str) -> None:
    model = Joint(encoder)
    with Questions() as questions:
        weighted_total(model(batch), WEIGHTS).backward()
    assert questions.asked == 0
    with Questions() as questions:  # the encoder alone does synchronise, which shows that counting works
        model.student.encoder(batch["input_ids"], batch["attention_mask"])
    assert questions.asked > 0


@pytest.mark.slow
def test_a_few_steps_overfit_a_batch(batch: dict[str, Tensor]) -> None:
    model = Joint()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    totals = []
    for _ in range(400):
        optimizer.zero_grad()
        # Step 1 would limit the video logit to what two classes can express.
        total = weighted_total(model(batch, step1=False), WEIGHTS)
        total.backward()
        optimizer.step()
        totals.append(total.item())
        if totals[-1] < 0.05 * totals[0]:
            break
    assert totals[-1] < 0.05 * totals[0]

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vadv_dist.errors import UserError
from vadv_dist.models.branches import AudioBranch
from vadv_dist.models.heads import TwoLayerMLP
from vadv_dist.models.teacher import Teacher, TeacherOutputs

VISUAL, FACE, WIDTH, BATCH = (3, 2, 12), (5, 8), 16, 4


def make_teacher(**changes: Any) -> Teacher:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "visual_shape": VISUAL,
        "face_shape": FACE,
        "width": WIDTH,
        "hidden": 8,
        "heads": 4,
        "cct_layers": 2,
        "mit_layers": 1,
        "prompt_layers": 2,
        "prompt_alpha": 0.1,
        "prompting": "video",
        "similarity": "dot",
    }
    return Teacher(**{**arguments, **changes})


def features(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "visual": torch.randn(BATCH, *VISUAL, generator=generator).to(dtype),
        "face": torch.rand(BATCH, *FACE, generator=generator).to(dtype),
    }


def total(outputs: TeacherOutputs) -> Tensor:
    return torch.stack([output.float().square().sum() for output in outputs[:4] if output is not None]).sum()


def without_gradient(teacher: Teacher) -> set[str]:
    return {name for name, p in teacher.named_parameters() if p.requires_grad and p.grad is None}


VARIANTS: dict[str, dict[str, Any]] = {
    "both branches": {},
    "visual only": {"face_shape": None},
    "face only": {"visual_shape": None, "prompting": "none"},
    "face only, static prompts": {"visual_shape": None, "prompting": "static"},
    "static prompts": {"prompting": "static"},
    "static prompts, cosine": {"prompting": "static", "similarity": "cosine"},
    "no prompts": {"prompting": "none"},
    "cosine": {"similarity": "cosine"},
    "frozen prompts of another width": {"prompts": torch.eye(2, 20)},
    "frozen prompts": {"prompts": torch.eye(2, WIDTH)},
    "features of the shared width": {"width": 12},
    "no cct": {"cct_layers": 0},
    "no mit": {"mit_layers": 0},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_returns_its_logits_and_trains_every_parameter(changes: dict[str, Any]) -> None:
    teacher = make_teacher(**changes)
    outputs = teacher(**features())
    has_prompts = changes.get("prompting") != "none"
    assert outputs.video_logit.shape == (BATCH,)
    assert (outputs.class_logits is not None) == (outputs.prompt_logit is not None) == has_prompts
    if has_prompts:
        assert outputs.class_logits.shape == (BATCH, 2)
        assert outputs.prompt_logit.shape == (BATCH,)
    total(outputs).backward()
    assert without_gradient(teacher) == set()


def test_each_branch_reaches_the_video_logit() -> None:
    teacher, given = make_teacher(), features()
    before = teacher(**given)
    for name in ("visual", "face"):
        after = teacher(**{**given, name: given[name] + 0.5})
        assert not torch.allclose(before.video_logit, after.video_logit, atol=1e-6)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("stored", [math.nan, math.inf, 7.0])
def test_stored_values_of_a_missing_feature_do_not_matter(similarity: str, stored: float) -> None:
    teacher, given = make_teacher(similarity=similarity), features()
    masks = {"has_visual": torch.tensor([1, 0, 1, 0]), "has_face": torch.tensor([1.0, 1.0, 0.0, 0.0])}
    zeroed = {"visual": given["visual"].clone(), "face": given["face"].clone()}
    filled = {"visual": given["visual"].clone(), "face": given["face"].clone()}
    for name in ("visual", "face"):
        zeroed[name][masks[f"has_{name}"] == 0] = 0.0
        filled[name][masks[f"has_{name}"] == 0] = stored

    def outputs_and_gradient(values: dict[str, Tensor]) -> list[Tensor]:
        outputs = teacher(**values, **masks)
        given = [output for output in outputs if output is not None]
        return [*given, *torch.autograd.grad(total(outputs), list(teacher.parameters()))]

    for ours, reference in zip(outputs_and_gradient(filled), outputs_and_gradient(zeroed), strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, reference, rtol=0, atol=0)


def test_rows_with_all_features_give_the_same_result_without_masks() -> None:
    teacher, given = make_teacher(), features()
    some = {"has_visual": torch.tensor([1, 0, 1, 1]), "has_face": torch.tensor([1, 1, 0, 1])}
    for masked, plain in zip(teacher(**given, **some), teacher(**given), strict=True):
        if plain is None:  # without an audio branch
            continue
        torch.testing.assert_close(masked[[0, 3]], plain[[0, 3]])
        assert not torch.allclose(masked[[1, 2]], plain[[1, 2]], atol=1e-6)


def test_a_row_without_video_compares_the_face_with_unadapted_prompts() -> None:
    teacher, given = make_teacher(), features()
    nobody = torch.zeros(BATCH)
    outputs = teacher(**given, has_visual=nobody)
    face_BD = teacher.face_branch(given["face"])
    video_BD = teacher.fusion(torch.cat([torch.zeros_like(face_BD), face_BD], dim=-1))
    torch.testing.assert_close(outputs.class_logits, video_BD @ teacher.prompts.T)


@pytest.mark.parametrize("prompts", [None, torch.eye(2, WIDTH), torch.eye(2, 20)])
def test_static_prompts_are_not_adapted(prompts: Tensor | None) -> None:
    teacher, given = make_teacher(prompting="static", prompts=prompts), features()
    outputs = teacher(**given, has_visual=torch.tensor([1, 0, 1, 1]))
    seen: list[Tensor] = []
    teacher.video_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    again = teacher(**given, has_visual=torch.tensor([1, 0, 1, 1]))
    prompts_CD = teacher.prompts if teacher.prompt_projection is None else teacher.prompt_projection(teacher.prompts)
    torch.testing.assert_close(again.class_logits, seen[0] @ prompts_CD.T)  # eq. 8 without eq. 7
    torch.testing.assert_close(outputs.class_logits, again.class_logits)
    assert not any(name.startswith("prompting.") for name in teacher.state_dict())


def test_video_specific_prompts_differ_from_static_ones() -> None:
    video, static = make_teacher(), make_teacher(prompting="static")
    left = static.load_state_dict(video.state_dict(), strict=False)
    assert {name.split(".")[0] for name in left.unexpected_keys} == {"prompting"}
    assert not left.missing_keys
    ours, theirs = video(**features()), static(**features())
    torch.testing.assert_close(ours.video_logit, theirs.video_logit)
    assert not torch.allclose(ours.class_logits, theirs.class_logits, atol=1e-4)


def test_prompt_logit_depends_only_on_the_softmax() -> None:
    teacher = make_teacher()
    outputs = teacher(**features())
    by_hand = teacher.prompt_head(outputs.class_logits.exp() / outputs.class_logits.exp().sum(-1, keepdim=True))
    torch.testing.assert_close(outputs.prompt_logit, by_hand.squeeze(-1))


def test_frozen_prompts_are_saved_but_not_trained() -> None:
    prompts = torch.eye(2, WIDTH)
    teacher = make_teacher(prompts=prompts)
    assert "prompts" not in dict(teacher.named_parameters())
    assert torch.equal(teacher.state_dict()["prompts"], prompts)
    assert "prompts" in dict(make_teacher().named_parameters())


@pytest.mark.parametrize("width", [32, 768])
def test_training_starts_with_logits_near_zero(width: int) -> None:
    torch.manual_seed(0)
    prompts = torch.nn.functional.normalize(torch.randn(2, width), dim=-1)
    teacher = make_teacher(visual_shape=(8, 1, width), face_shape=(64, 8), width=width, hidden=128, prompts=prompts)
    video = torch.randn(16, 8, 1, width)
    outputs = teacher(visual=video, face=torch.rand(16, 64, 8))
    assert outputs.video_logit.abs().max() < 0.3
    assert outputs.prompt_logit.abs().max() < 0.3
    assert (outputs.class_logits.softmax(-1) - 0.5).abs().max() < 0.15
    # but the logit differs between videos, so that there is a gradient
    assert outputs.video_logit.std() > 1e-3


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_float16_features_work_with_any_weight_type(weights: torch.dtype) -> None:
    teacher = make_teacher(prompts=torch.eye(2, 20)).to(weights)
    outputs = teacher(**features(torch.float16), has_visual=torch.tensor([1, 1, 0, 1]))
    assert {output.dtype for output in outputs[:4]} == {torch.float32}
    reference = make_teacher(prompts=torch.eye(2, 20))(**features(), has_visual=torch.tensor([1, 1, 0, 1]))
    torch.testing.assert_close(outputs.video_logit.float(), reference.video_logit, atol=0.02, rtol=0.05)
    total(outputs).backward()
    assert without_gradient(teacher) == set()


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_logits_are_fp32_and_not_rounded_under_autocast(similarity: str) -> None:
    teacher = make_teacher(similarity=similarity)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = teacher(**features(torch.float16))
    for logits in filter(lambda output: output is not None, outputs):
        assert logits.dtype == torch.float32
        assert not torch.equal(logits, logits.bfloat16().float())


def test_unused_parameters_can_be_frozen() -> None:
    teacher = make_teacher(similarity="cosine")
    outputs = teacher(**features())
    (outputs.video_logit.sum() + outputs.class_logits.sum()).backward()  # step 1 off
    silent = without_gradient(teacher)
    assert silent == {f"prompt_head.{layer}.{kind}" for layer in ("dense", "out") for kind in ("weight", "bias")}
    assert set(teacher.freeze_unused(prompt_logit=False)) == silent
    assert without_gradient(teacher) == set()


@pytest.mark.parametrize("used", [("video_logit",), ("class_logits",), ("prompt_logit",), ()])
def test_exactly_the_parameters_with_a_gradient_stay_trainable(used: tuple[str, ...]) -> None:
    teacher = make_teacher(similarity="cosine")
    outputs = teacher(**features())
    loss = sum((getattr(outputs, name).square().sum() for name in used), torch.zeros((), requires_grad=True))
    loss.backward()
    silent = without_gradient(teacher)
    names = ("video_logit", "class_logits", "prompt_logit")
    assert set(teacher.freeze_unused(**{name: name in used for name in names})) == silent


def test_dropout_is_active_only_in_training() -> None:
    teacher, given = make_teacher(dropout=0.5), features()
    assert not torch.equal(teacher(**given).video_logit, teacher(**given).video_logit)
    teacher.eval()
    assert torch.equal(teacher(**given).video_logit, teacher(**given).video_logit)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visual_shape": None, "face_shape": None, "prompting": "none"}, "The teacher has no input"),
        ({"visual_shape": None}, "teacher.prompting: video needs the visual branch"),
        ({"heads": 5}, "teacher.width is 16, which is not divisible by teacher.heads = 5"),
        ({"prompts": torch.zeros(3, WIDTH)}, r"shape \[3, 16\], expected \[2, width\]"),
    ],
)
def test_an_impossible_teacher_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_teacher(**changes)


def test_a_branch_without_its_features_is_refused() -> None:
    with pytest.raises(ValueError, match="no expression scores were given"):
        make_teacher()(visual=features()["visual"])
    with pytest.raises(ValueError, match="Got 3 visual tokens per frame, expected 2"):
        make_teacher()(visual=torch.zeros(BATCH, 3, 3, 12), face=features()["face"])


@pytest.mark.parametrize("shape", [(5, 6), (6,)])
def test_an_audio_branch_is_a_third_one_and_leaves_the_others_as_they_are(shape: tuple[int, ...]) -> None:
    plain, teacher = make_teacher(), make_teacher(audio_shape=shape)
    first = {n: p for n, p in plain.named_parameters() if n.startswith(("visual_branch", "face_branch"))}
    assert first
    assert all(torch.equal(teacher.get_parameter(name), value) for name, value in first.items())
    assert not any("audio" in name for name in plain.state_dict())
    given, audio = features(), torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(2))
    outputs = teacher(**given, audio=audio)
    assert outputs.features("audio").shape == (BATCH, WIDTH)
    total(outputs).backward()
    assert without_gradient(teacher) == set()
    louder = teacher(**given, audio=audio + 0.5 * torch.arange(6))
    assert not torch.allclose(outputs.video_logit, louder.video_logit, atol=1e-6)
    # Missing audio is zeros behind the branch, whatever is stored.
    has = torch.tensor([1, 0, 1, 0])
    stored = torch.where(has.view(-1, *[1] * len(shape)) == 0, math.nan, audio)
    masked = teacher(**given, audio=stored, has_audio=has)
    assert masked.video_logit.isfinite().all()
    torch.testing.assert_close(masked.video_logit[has == 1], outputs.video_logit[has == 1])
    assert not masked.features("audio")[has == 0].any()
    with pytest.raises(ValueError, match="no audio features were given"):
        teacher(**given)


def test_audio_alone_teaches_with_static_prompts_or_none() -> None:
    for prompting in ("static", "none"):
        teacher = make_teacher(visual_shape=None, face_shape=None, audio_shape=(5, 6), prompting=prompting)
        total(teacher(audio=torch.randn(BATCH, 5, 6))).backward()
        assert without_gradient(teacher) == set()


def test_descriptors_of_very_different_scale_share_one_branch() -> None:
    """A pitch of 200 Hz must not drown a ratio of 0.1: an octave and a ratio of 0.9 both move the vector."""
    torch.manual_seed(0)
    branch = AudioBranch(shape=(4, 3), width=8, heads=2, mit_layers=1).eval()
    audio = torch.tensor([200.0, 0.1, -3.0]).expand(1, 4, 3)
    base = branch(audio)
    for changed in ([400.0, 0.1, -3.0], [200.0, 0.9, -3.0]):
        moved = branch(torch.tensor(changed).expand(1, 4, 3))
        assert (moved - base).norm() / base.norm() > 0.01


def test_two_layer_mlp_equals_its_formula() -> None:
    mlp = TwoLayerMLP(2, 1, 1, "tanh")
    for value, parameter in zip((0.5, 0.25, 2.0, -1.0), mlp.parameters(), strict=True):
        torch.nn.init.constant_(parameter, value)
    # 2 · tanh(0.5 · 1 + 0.5 · 3 + 0.25) - 1
    assert mlp(torch.tensor([1.0, 3.0])).item() == pytest.approx(2 * math.tanh(2.25) - 1)
    with pytest.raises(ValueError, match="activation is 'sine'"):
        TwoLayerMLP(2, 1, 1, "sine")  # type: ignore[arg-type]  # what is tested

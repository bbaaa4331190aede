"""Rivals of step distillation in both tasks: what they train, and which combinations are refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vadv_dist.config import load_config
from vadv_dist.config.rival_sections import COMPARE_FEATURES
from vadv_dist.data.schema import Batch
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.errors import UserError
from vadv_dist.launch.worker import train_locally
from vadv_dist.objectives.base import weighted_total
from vadv_dist.objectives.outputs import Rows, View
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks import Task, build
from vadv_dist.tasks.rivals import Sides, build_rival
from vadv_dist.training.splits import Splits

CLASSES = ("kd", "dkd", "dist")
KINDS = (*CLASSES, *COMPARE_FEATURES)
CPU = torch.device("cpu")
SMALL = {"crd": ["--objective.negatives=32", "--objective.width=8"]}
# Share by which a loss falls. Most of VID's is the variance, one number per feature, which moves by the learning rate.
MARGIN = {"vid": 0.005}
# The rival's loss decides alone, and the teacher stays as it is.
ALONE = ["--objective.alpha=0", "--objective.beta=0.01", "--objective.gamma=0"]
NO_DROPOUT = ["--student.dropout=0", "--student.encoder_dropout=0"]


def task_and_batch(path: Path, *overrides: str, rows: int = 24) -> tuple[Task, Batch]:
    config = load_config(path, [*overrides, f"--data.batch_size={rows}"])
    train_split = Splits.open(config).train
    task = build(config, train_split.sources)
    windows = LocalWindows(train_split)
    plan = train_split.plan(config.data, seed=1, epoch=0)
    batch = next(iter(BatchStream(plan=plan, windows=windows, collator=task.collator).steps())).micro[0]
    windows.close()
    return task, batch


def term_names(task: Task) -> list[str]:
    """The rival's own terms."""
    return [term.name for term in task.description.terms if term.weight == "psi"]


@pytest.mark.parametrize("kind", KINDS)
def test_sentiment_learns_from_every_rival(write_config: Callable[..., Path], kind: str) -> None:
    overrides = [f"--objective.kind={kind}", "--optimizer.lr=3.0e-3", *ALONE, *NO_DROPOUT, *SMALL.get(kind, [])]
    task, batch = task_and_batch(write_config(), *overrides)
    task.check(CPU)
    names = term_names(task)
    assert names
    engine = build_engine(load_config(write_config(), overrides), task.step, task.parameter_groups(), Distributed())
    encoder = [p.detach().clone() for n, p in task.step.named_parameters() if n.startswith("student.encoder.layer")]
    totals = []
    for _ in range(15):
        terms = engine.step([batch], lambda _: task.weights, 1.0, weights_known=True)[0][0]
        totals.append({name: float(terms[name]) for name in (*names, "total")})
    for name in (*names, "total"):
        first, last = (sum(line[name] for line in part) / 3 for part in (totals[:3], totals[-3:]))
        assert last < first - MARGIN.get(kind, 0.05) * abs(first), name
    trained = [p for n, p in task.step.named_parameters() if n.startswith("student.encoder.layer")]
    assert all(not torch.equal(*pair) for pair in zip(encoder, trained, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rival_alone_moves_the_student_and_not_the_teacher(write_config: Callable[..., Path], kind: str) -> None:
    for detach in (True, False):
        arguments = [f"--objective.kind={kind}", f"--objective.detach_targets={detach}".lower(), *NO_DROPOUT]
        task, batch = task_and_batch(write_config(), *arguments, *SMALL.get(kind, []))
        terms = task.step(batch)[1]
        weighted_total({name: terms[name] for name in term_names(task)}, task.weights).backward()
        sizes = {"student": 0.0, "teacher": 0.0, "objective": 0.0}
        for name, parameter in task.step.named_parameters():
            if parameter.grad is not None:
                sizes[name.partition(".")[0]] += float(parameter.grad.abs().sum())
        assert sizes["student"] > 0
        assert (sizes["teacher"] > 0) is not detach


@pytest.mark.parametrize("kind", KINDS)
def test_filler_and_rows_without_video_change_nothing(write_config: Callable[..., Path], kind: str) -> None:
    arguments = [f"--objective.kind={kind}", "--data.missing=mask", *NO_DROPOUT, *SMALL.get(kind, [])]
    task, batch = task_and_batch(write_config(), *arguments)
    task.step.eval()
    present = torch.ones(len(batch.label))
    present[5::6] = 0
    valid = torch.ones(len(batch.label))
    valid[-3:] = 0
    counts = {name: torch.tensor(float((valid * present).sum())) for name in batch.counts}
    batch = dataclasses.replace(
        batch,
        valid=valid,
        present=dict.fromkeys(batch.present, present),
        row_id=torch.where(valid.bool(), batch.row_id, -1),
        counts={**counts, "rows": valid.sum()},
    )
    changed = {name: values.clone() for name, values in batch.fields.items()}
    for name in ("visual", "face"):
        changed[name][(present * valid) == 0] = 7.0
    for one, other in zip(batch.fields.values(), changed.values(), strict=True):
        assert one.shape == other.shape
    terms, again = (task.step(b)[1] for b in (batch, dataclasses.replace(batch, fields=changed)))
    for name in term_names(task):
        assert terms[name].item() == again[name].item()
        assert terms[name].isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_retrieval_learns_from_every_rival(write_retrieval_config: Callable[..., Path], kind: str) -> None:
    path = write_retrieval_config(objective=kind)
    overrides = ["--optimizer.lr=3.0e-3", *ALONE, *SMALL.get(kind, [])]
    task, batch = task_and_batch(path, *overrides)
    task.check(CPU)
    names = term_names(task)
    assert {name.rpartition("_")[2] for name in names} == {"audio", "visual"}
    engine = build_engine(load_config(path, overrides), task.step, task.parameter_groups(), Distributed())
    lines = []
    for _ in range(15):
        terms = engine.step([batch], lambda _: task.weights, 1.0, weights_known=True)[0][0]
        lines.append(sum(float(terms[name]) * task.weights[name] for name in names))
    first, last = sum(lines[:3]), sum(lines[-3:])
    assert last < first - MARGIN.get(kind, 0.05) * abs(first)


@pytest.mark.parametrize("kind", ["kd", "dkd"])
def test_class_probabilities_need_prompts_in_sentiment(write_config: Callable[..., Path], kind: str) -> None:
    expected = (
        rf"teacher\.prompting is 'none', expected video or static, because objective\.kind {kind} compares class "
        r"probabilities, and that of a single regression logit is constant: .* has labels that are numbers\. "
        r"Without prompts, these objectives can teach: step, dist, fitnet, pkt, crd, rkd, sp, cckd, vid, amid"
    )
    config = load_config(write_config(), [f"--objective.kind={kind}", "--teacher.prompting=none"])
    with pytest.raises(UserError, match=expected):
        Splits.open(config)


def test_a_frozen_student_without_class_scores_learns_nothing_from_them(write_config: Callable[..., Path]) -> None:
    config = load_config(write_config(), ["--student.freeze_encoder=true", "--objective.kind=kd"])
    with pytest.raises(UserError) as caught:
        Splits.open(config)
    assert "objective.kind kd would train nothing but a head of its own: " in str(caught.value)
    assert (
        "With a frozen encoder, these objectives can teach: step, dist, and with student_features: hidden fitnet"
        in (str(caught.value))
    )


@pytest.mark.parametrize("kind", ["dist", *COMPARE_FEATURES])
def test_other_rivals_teach_sentiment_without_prompts(write_config: Callable[..., Path], kind: str) -> None:
    overrides = [f"--objective.kind={kind}", "--teacher.prompting=none", *SMALL.get(kind, [])]
    task, batch = task_and_batch(write_config(), *overrides)
    task.check(CPU)
    terms = task.step(batch)[1]
    assert set(terms) == set(task.weights) == {term.name for term in task.description.terms}
    assert "video_classification" not in terms


def test_what_is_constant_is_no_term(write_config, write_retrieval_config) -> None:
    cases = {
        "dkd": (["dkd_target"], ["dkd_target", "dkd_non_target"]),
        "dist": (["dist_intra"], ["dist_inter", "dist_intra"]),
    }
    for kind, (sentiment, retrieval) in cases.items():
        task, _ = task_and_batch(write_config(), f"--objective.kind={kind}")
        assert term_names(task) == sentiment
        task, _ = task_and_batch(write_retrieval_config(objective=kind))
        assert term_names(task) == [f"{name}_{modality}" for modality in ("audio", "visual") for name in retrieval]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["--objective.kind=dkd", "--objective.target=0"],
            "dkd_target is not constant, but objective.target is 0",
        ),
        (
            ["--objective.kind=dist", "--objective.intra=0"],
            "dist_intra is not constant, but objective.intra is 0",
        ),
    ],
)
def test_factors_that_leave_only_constants_are_refused(write_config, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match="can teach nothing: below three classes, only its term " + message):
        task_and_batch(write_config(), *overrides)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_student_without_scores_is_refused_by_losses_that_compare_them(write_retrieval_config, kind: str) -> None:
    section = load_config(write_retrieval_config(objective=kind)).objective
    sides = Sides(teacher_width=4, student_width=4, num_rows=9, seed=1, num_classes=3, student_has_scores=False)
    with pytest.raises(UserError, match=f"objective.kind {kind} compares scores of classes"):
        build_rival(section, sides)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{kind: rkd, distance: 0, angle: 0}", "objective.distance is 0.0, expected above 0 if angle is 0"),
        ("{kind: dist, inter: 0, intra: 0}", "objective.inter is 0.0, expected above 0 if intra is 0"),
        ("{kind: kd, temperature: 0}", "objective.temperature is 0, expected a number above 0"),
        ("{kind: fitnet, beta: 0}", "objective.beta is 0, expected a number above 0"),
        ("{kind: kd, negatives: 5}", "objective.negatives requires objective.kind to be 'crd', but it is 'kd'"),
        (
            "{kind: vid, weighting: famo}",
            "objective.weighting.kind is 'famo', expected fixed, equal, rlw or uncertainty",
        ),
    ],
)
def test_invalid_fields_are_named(write_config: Callable[..., Path], given: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write_config(extra=f"objective: {given}"))


def test_weights_are_psi_times_the_factors(write_config: Callable[..., Path]) -> None:
    task, _ = task_and_batch(write_config(), "--objective.kind=rkd", "--objective.psi=0.5")
    expected = {"video_regression": 1.0, "text_regression": 10.0, "video_classification": 1.0}
    assert task.weights == {**expected, "rkd_distance": 12.5, "rkd_angle": 25.0}


def test_the_exported_student_has_no_part_of_the_objective(write_config: Callable[..., Path]) -> None:
    task, _ = task_and_batch(write_config(), "--objective.kind=kd")
    own = [name for name, _ in task.step.named_parameters() if name.startswith("objective.")]
    assert own == ["objective.distillation.head.weight", "objective.distillation.head.bias"]
    (group,) = (g for g in task.parameter_groups() if own[0] in g.names)
    assert group.lr == max(g.lr for g in task.parameter_groups())


@pytest.mark.parametrize("num_classes", [None, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_the_device_is_read_and_no_shape_depends_on_one(write_config, kind: str, num_classes: int) -> None:
    """What a recorded step (CUDA graph) needs; fake tensors have no values, and refuse both."""
    section = load_config(write_config(), [f"--objective.kind={kind}"]).objective
    sides = Sides(teacher_width=6, student_width=5, num_rows=50, seed=1, num_classes=num_classes)
    with FakeTensorMode():

        def values(*shape: int) -> torch.Tensor:
            return torch.randn(8, *shape, requires_grad=True)

        def view(width: int) -> View:
            return View(values() if num_classes is None else values(4), values(width), values(num_classes or 2))

        ones, count = torch.ones(8), torch.tensor(8)
        rows = Rows(torch.zeros(8), ones, torch.arange(8), ones, num_rows=count, num_video_rows=count)
        distillation, _ = build_rival(section, sides)
        torch.stack([*distillation(view(6), view(5), rows).values()]).sum().backward()


def test_a_run_with_a_memory_bank_resumes_to_the_same_weights(write_retrieval_config) -> None:
    objective = "{kind: crd, negatives: 16, width: 4}"
    whole, cut = (load_config(write_retrieval_config(name, objective=objective)) for name in ("whole", "cut"))
    asked = iter([False] * 5)
    for config in (whole, cut):
        RunFolder.of(config).claim(config)
    train_locally(whole, lambda line: None, lambda: False)
    assert train_locally(cut, lambda line: None, lambda: next(asked, True)).stopped is None
    train_locally(cut, lambda line: None, lambda: False)
    first, second = (list_checkpoints(RunFolder.of(config).checkpoints)[-1] for config in (whole, cut))
    for one, other in ((first.weights(), second.weights()), (first.ranks()[0], second.ranks()[0])):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    bank = first.ranks()[0]
    assert {name.rpartition(".")[2] for name in bank} == {"teacher", "student", "scale", "step"}
    assert bank["objective.rivals.audio.bank.step"].item() == first.step


@pytest.mark.parametrize("teacher_features", ["video", "visual", "face", "prompts"])
def test_the_named_features_are_compared(write_config, write_retrieval_config, teacher_features: str) -> None:
    """FitNet's regressor has their widths; its loss reaches both models as far as the features."""
    fitnet = ["--objective.kind=fitnet", f"--objective.teacher_features={teacher_features}"]
    teacher_width = 2 * 16 if teacher_features == "prompts" else 16
    for student_features, student_width in (("pooled", 128), ("hidden", 32)):
        overrides = [*fitnet, f"--objective.student_features={student_features}", "--objective.detach_targets=false"]
        task, batch = task_and_batch(write_config(), *overrides, *NO_DROPOUT)
        task.check(CPU)
        regressor = task.step.get_parameter("objective.distillation.regressor.weight")
        assert regressor.shape == (teacher_width, student_width)
        task.step(batch)[1]["fitnet"].backward()
        reached = {n for n, p in task.step.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert "student.encoder.embeddings.position_embeddings.weight" in reached
        assert ("student.dense.weight" in reached) is (student_features == "hidden")
        modules = {name.split(".")[1] for name in reached if name.startswith("teacher.")}
        assert ("fusion" in modules) is (teacher_features == "video")
        assert ("face_branch" in modules) is (teacher_features in ("video", "face"))
        assert ("prompting" in modules) is (teacher_features == "prompts")
    if teacher_features == "face":  # the events have none
        return
    for student_features in ("embedding", "hidden"):
        overrides = [*fitnet, f"--objective.student_features={student_features}"]
        task, batch = task_and_batch(write_retrieval_config(), *overrides)
        task.check(CPU)
        classes = len(task.description.classes)
        teacher_width = classes * 8 if teacher_features == "prompts" else 8
        student_width = 16 + classes if student_features == "embedding" else 16
        regressor = task.step.get_parameter("objective.rivals.audio.regressor.weight")
        assert regressor.shape == (teacher_width, student_width)
        assert task.step(batch)[1]["fitnet_visual"] > 0


def test_a_clip_without_a_face_has_no_face_to_compare(write_config) -> None:
    overrides = ["--objective.kind=fitnet", "--objective.teacher_features=face", "--data.missing=mask"]
    task, batch = task_and_batch(write_config(), *overrides)
    task.step.eval()
    has_face = torch.ones(len(batch.label))
    has_face[::3] = 0
    kept = has_face.bool()
    fewer = dataclasses.replace(
        batch, present=batch.present | {"face": has_face}, counts=batch.counts | {"face": has_face.sum()}
    )
    outputs = task.step(batch)[0]
    predicted = task.step.objective.distillation.regressor(outputs["text_features"][kept])
    expected = (predicted - outputs["video_features"][kept]).square().mean()
    torch.testing.assert_close(task.step(fewer)[1]["fitnet"], expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["--objective.teacher_features=face", "--teacher.use_face=false"],
            "objective.teacher_features is 'face', expected 'video', 'visual' or 'prompts', because teacher.use_face "
            "is false",
        ),
        (
            ["--objective.teacher_features=prompts", "--teacher.prompting=static"],
            "objective.teacher_features is 'prompts', expected 'video', 'visual' or 'face', because teacher.prompting "
            "is static",
        ),
        (
            ["--objective.student_features=embedding"],
            "objective.student_features is 'embedding', expected 'pooled' or 'hidden', because task.kind is sentiment",
        ),
        (
            ["--student.freeze_encoder=true"],
            "objective.student_features is 'pooled', expected hidden, because student.freeze_encoder is true",
        ),
        (["--objective.teacher_features=audio"], "expected 'video', 'visual', 'face' or 'prompts'"),
    ],
)
def test_features_that_a_model_lacks_are_refused(write_config, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(write_config(), ["--objective.kind=fitnet", *overrides])
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_rivals_compute_in_fp32_with_weights_and_features_in_bf16(write_config, kind: str) -> None:
    """What DeepSpeed gives them in bf16."""
    section = load_config(write_config(), [f"--objective.kind={kind}", *SMALL.get(kind, [])]).objective
    sides = Sides(teacher_width=6, student_width=5, num_rows=8, seed=1)
    torch.manual_seed(0)
    logit, features, classes = torch.randn(2, 8), (torch.randn(8, 6), torch.randn(8, 5)), torch.randn(8, 2)
    rows = Rows(torch.randn(8), torch.ones(8), torch.arange(8), None, num_rows=8, num_video_rows=8)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(1)
        distillation = build_rival(section, sides)[0].to(dtype)
        teacher, student = (View(logit[i], features[i].to(dtype), classes) for i in range(2))
        found.append(distillation(teacher, student, rows))
    for name, term in found[1].items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term, found[0][name], rtol=0.05, atol=0.02)

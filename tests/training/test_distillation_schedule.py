"""Warm-up and guard of the terms that distil: the factor of each epoch, what it multiplies, and what is logged."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from weak_video import write_weak_video

from vadv_dist.config import load_config
from vadv_dist.errors import UserError
from vadv_dist.evaluation.relative_knowledge import relative_knowledge
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.runs.records import Line
from vadv_dist.training.distillation_schedule import DistillationSchedule
from vadv_dist.watching.watch import state_of

# A student that learns faster than its teacher.
LEARNS = ("--teacher.use_face=false", "--student.pooling=mean", "--optimizer.lr=3e-3")
QUIET = Console(quiet=True, stderr=True)
WEIGHTS = {
    "video_regression": 1.0,
    "text_regression": 10.0,
    "video_classification": 1.0,
    "prompt_to_video": 10.0,
    "video_to_text": 1.0,
}


def run(config_path: Path, *overrides: str) -> RunFolder:
    config = load_config(config_path, overrides)
    train(config, QUIET)
    return RunFolder.of(config)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose video says less than its words."""
    return write_weak_video(tmp_path_factory.mktemp("weak") / "data")


def lines(folder: RunFolder, kind: str) -> list[dict]:
    return [line for line in map(json.loads, folder.metrics_path.read_text().splitlines()) if line["kind"] == kind]


@pytest.mark.parametrize(
    ("begin", "ramp", "expected"),
    [
        (0, 0, [1, 1, 1, 1, 1]),
        (2, 0, [0, 0, 1, 1, 1]),
        (0, 3, [0.25, 0.5, 0.75, 1, 1]),
        (1, 1, [0, 0.5, 1, 1, 1]),
    ],
)
def test_factor_rises_from_the_first_epoch_of_the_warm_up(begin: int, ramp: int, expected: list[float]) -> None:
    schedule = DistillationSchedule(begin, ramp)
    assert [schedule.factor(epoch, guard=0.0) for epoch in range(5)] == expected
    guarded = DistillationSchedule(begin, ramp, is_guarded=True)
    assert [guarded.factor(epoch, guard=0.5) for epoch in range(5)] == [0.5 * factor for factor in expected]


@pytest.mark.parametrize(
    ("overrides", "is_guarded"),
    [
        ([], False),
        (["--objective.psi=10"], True),
        (["--objective.weighting=equal"], True),
        (["--objective.guard=on"], True),
        (["--objective.psi=10", "--objective.guard=off"], False),
        (["--objective.psi=10", "--objective.guard=false"], False),
        (["--objective.beta=0"], False),
        (["--task.kind=retrieval", "--student.kind=eics", "--objective.psi=10"], False),
        (["--objective.kind=none"], False),
    ],
)
def test_guard_is_automatic_where_the_weights_are_not_the_paper_s(overrides: list[str], is_guarded: bool) -> None:
    assert DistillationSchedule.of(load_config(None, overrides)).is_guarded == is_guarded


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--objective.guard=maybe"], "objective.guard is 'maybe', expected 'auto', 'on' or 'off'"),
        (["--objective.guard=on", "--objective.beta=0"], "objective.guard is 'on', expected off or auto if beta is 0"),
        (["--objective.begin_epoch=1", "--objective.beta=0"], "objective.begin_epoch is 1, expected 0 if beta is 0"),
        (["--objective.kind=none", "--objective.guard=on"], "objective.guard requires objective.kind to be 'step'"),
        (
            ["--task.kind=retrieval", "--student.kind=eics", "--objective.guard=on"],
            "objective.guard is 'on', expected off or auto: in retrieval, teacher and student have no common measure",
        ),
    ],
)
def test_impossible_guards_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(None, overrides)


def test_guard_multiplies_the_weight_of_the_term_that_distils_alone(write_config, weak: Path) -> None:
    folder = run(write_config(uri=weak), *LEARNS, "--objective.guard=on", "--trainer.epochs=4")
    epochs = lines(folder, "epoch")
    expected = [0.0]
    for line in epochs[:-1]:
        video, text = (line["validation"][name].get("corr") for name in ("video", "student"))
        expected.append(relative_knowledge(*(float("nan") if r is None else r for r in (video, text))))
    factors = [line["distillation"] for line in epochs]
    assert factors == expected
    assert 0 < factors[-1] < 1
    for line in lines(folder, "step"):
        weights = {**WEIGHTS, "video_to_text": factors[line["epoch"]]}
        assert line["total"] == pytest.approx(sum(w * line[name] for name, w in weights.items()), rel=1e-5)
    found = state_of(str(folder.root))
    assert found["distillation"] == factors[-1]


def test_epochs_without_guard_or_warm_up_log_no_factor(write_config) -> None:
    (line, _) = lines(run(write_config()), "epoch")
    assert "distillation" not in line
    (line, _) = lines(run(write_config("none"), "--objective.guard=on", "--objective.psi=0"), "epoch")
    assert "distillation" not in line


def test_student_is_trained_alone_until_the_warm_up_begins(write_config) -> None:
    options = ("--trainer.epochs=1", "--student.dropout=0", "--student.encoder_dropout=0", "--optimizer.clip_norm=null")
    taught = run(write_config("taught"), *options, "--objective.begin_epoch=1")
    untaught = run(write_config("untaught"), *options, "--objective.psi=0", "--objective.guard=off")
    first, second = (list_checkpoints(folder.checkpoints)[-1].weights() for folder in (taught, untaught))
    names = [name for name in first if name.startswith("student.")]
    assert names
    assert all(torch.equal(first[name], second[name]) for name in names)


@pytest.mark.parametrize("method", ["equal", "famo", "uw_so"])
def test_learned_weights_are_multiplied_and_logged_as_they_act(write_config, weak: Path, method: str) -> None:
    options = [*LEARNS, f"--objective.weighting={method}", "--trainer.epochs=3", "--objective.guard=on"]
    folder = run(
        write_config(uri=weak), *options, *(["--objective.weighting.temperature=1000"] if method == "uw_so" else [])
    )
    factors = [line["distillation"] for line in lines(folder, "epoch")]
    for line in lines(folder, "step"):
        total = sum(weight * line[name] for name, weight in line["weights"].items())
        assert line["total"] == pytest.approx(total, rel=1e-5)
        if method == "equal":
            assert line["weights"]["video_to_text"] == pytest.approx(factors[line["epoch"]])
            assert line["weights"]["text_regression"] == 1
    distilling = {line["epoch"] for line in lines(folder, "step") if line["weights"]["video_to_text"] > 0}
    assert distilling == {epoch for epoch, factor in enumerate(factors) if factor > 0}


class CutOffError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [7, 10])
def test_interrupted_run_ends_bit_identically(write_config, weak: Path, stop_at: int, monkeypatch) -> None:
    # Five steps an epoch: cut in the second epoch, and in its validation, before the checkpoint.
    options = ("--objective.guard=on", "--objective.ramp_epochs=1", "--trainer.checkpoint_every_steps=3")
    options += (*LEARNS, "--data.batch_size=40", "--trainer.epochs=4", "--trainer.checkpoint_every_epochs=null")
    whole = run(write_config("whole", uri=weak), *options)
    original = MetricsLog.append

    def cut(self: MetricsLog, line: Line) -> None:
        original(self, line)
        if line.step == stop_at:
            raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", cut)
        with pytest.raises(CutOffError):
            run(write_config("cut", uri=weak), *options)
    again = run(write_config("cut", uri=weak), *options)
    first, second = (list_checkpoints(folder.checkpoints)[-1] for folder in (whole, again))
    assert first.step == second.step > stop_at
    ours, theirs = first.weights(), second.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    factors = [[line["distillation"] for line in lines(folder, "epoch")] for folder in (whole, again)]
    assert factors[0] == factors[1]
    assert 0 < factors[0][-1] <= 1
    assert first.state()["guard"] == second.state()["guard"]

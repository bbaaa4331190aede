"""Weightings inside a run: what is logged, what stays out, and that nothing depends on how the step is cut."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.runs.records import Line
from vadv_dist.tasks import build
from vadv_dist.training.splits import Splits

QUIET = Console(quiet=True, stderr=True)
METHODS = ("equal", "uncertainty", "uw_so", "dwa", "rlw", "famo")
TERMS = ("video_regression", "text_regression", "video_classification", "prompt_to_video", "video_to_text")


def weighting(method: str) -> list[str]:
    """Overrides for a weighting that gives every term some weight."""
    chosen = [f"--objective.weighting={method}"]
    return [*chosen, "--objective.weighting.temperature=1000"] if method == "uw_so" else chosen


def run(config_path: Path, *overrides: str) -> RunFolder:
    config = load_config(config_path, ["--objective.guard=off", *overrides])  # which would multiply them
    train(config, QUIET)
    return RunFolder.of(config)


def lines(folder: RunFolder, kind: str) -> list[dict]:
    return [line for line in map(json.loads, folder.metrics_path.read_text().splitlines()) if line["kind"] == kind]


@pytest.mark.parametrize("method", METHODS)
def test_logged_total_matches_the_logged_terms_and_weights(write_config, method: str) -> None:
    # The distances between logits begin near 0: at a low temperature uw_so would give them all the weight.
    options = (*weighting(method), "--trainer.max_steps=4")
    folder = run(write_config(), *options, "--trainer.accumulate=2")
    steps = lines(folder, "step")
    assert len(steps) == 4
    for line in steps:
        assert tuple(line["weights"]) == TERMS
        expected = sum(weight * line[name] for name, weight in line["weights"].items())
        assert line["total"] == pytest.approx(expected, rel=1e-5)
    (epoch,) = lines(folder, "epoch")
    means = {name: np.mean([line["weights"][name] for line in steps]) for name in TERMS}
    assert epoch["weights"] == pytest.approx(means)
    if method in ("uw_so", "rlw", "famo"):
        assert sum(means.values()) == pytest.approx(1.0)
    assert len({tuple(line["weights"].values()) for line in steps}) == (1 if method in ("equal", "dwa") else 4)


def test_collapsed_weights_are_reported_and_recorded(write_config) -> None:
    # At this temperature uw_so gives the least loss all the weight: a distance between two logits that begin near 0.
    options = ("--objective.weighting=uw_so", "--objective.weighting.temperature=0.1", "--trainer.max_steps=4")
    config, said = load_config(write_config(), options), io.StringIO()
    result = train(config, Console(file=said, width=200)).to_json()
    (epoch,) = lines(RunFolder.of(config), "epoch")
    assert epoch["collapse"]["term"] in ("prompt_to_video", "video_to_text")
    assert result["weights_collapsed"] == epoch["collapse"]
    assert "warning: the weights have collapsed" in said.getvalue()

    sound = load_config(write_config("sound"), ["--objective.weighting=equal", "--trainer.max_steps=2"])
    assert "weights_collapsed" not in train(sound, QUIET).to_json()


def test_uncertainty_learns_from_labels_alone(write_config) -> None:
    folder = run(write_config(), "--objective.weighting=uncertainty", "--objective.weighting.lr=1")
    steps = lines(folder, "step")
    for name in ("prompt_to_video", "video_to_text"):
        assert {line["weights"][name] for line in steps} == {0.5}
    assert len({line["weights"]["text_regression"] for line in steps}) > 1


def test_fixed_weights_are_not_logged(write_config) -> None:
    folder = run(write_config(), "--trainer.max_steps=1")
    assert "weights" not in lines(folder, "step")[0]
    assert "weights" not in lines(folder, "epoch")[0]


def test_the_logged_weights_of_a_step_are_those_of_its_own_losses(write_config) -> None:
    options = ("--objective.weighting=uw_so", "--objective.weighting.temperature=1000", "--trainer.max_steps=3")
    for accumulate in (1, 4):
        folder = run(write_config(f"run-{accumulate}"), *options, f"--trainer.accumulate={accumulate}")
        for line in lines(folder, "step"):
            raw = np.exp([1 / (1000 * line[name]) for name in TERMS])
            assert list(line["weights"].values()) == pytest.approx(list(raw / raw.sum()), rel=1e-5)


@pytest.mark.parametrize("method", ["uncertainty", "famo"])
def test_micro_batches_follow_the_curve_of_the_whole_batch(write_config, method: str) -> None:
    options = (f"--objective.weighting={method}", "--student.dropout=0", "--student.encoder_dropout=0")
    options += ("--trainer.max_steps=6",)
    one, four = run(write_config("one"), *options), run(write_config("four"), *options, "--trainer.accumulate=4")
    for a, b in zip(lines(one, "step"), lines(four, "step"), strict=True):
        assert b["total"] == pytest.approx(a["total"], rel=1e-5)
        assert b["weights"] == pytest.approx(a["weights"], rel=1e-4)


class CutOffError(Exception):
    pass


@pytest.mark.parametrize(
    ("method", "stop_at"),
    [
        ("dwa", 13),
        ("famo", 3),
        pytest.param("uncertainty", 3, marks=pytest.mark.slow),
        pytest.param("rlw", 3, marks=pytest.mark.slow),
    ],
)
def test_interrupted_run_ends_bit_identically(write_config, method: str, stop_at: int, monkeypatch) -> None:
    # Five steps an epoch; dwa has weights of its own from the third on.
    options = (f"--objective.weighting={method}", "--trainer.checkpoint_every_steps=2", "--data.batch_size=20")
    options += ("--trainer.accumulate=2", f"--trainer.epochs={3 if method == 'dwa' else 1}")
    whole = run(write_config("whole"), *options)
    original = MetricsLog.append

    def cut(self: MetricsLog, line: Line) -> None:
        original(self, line)
        if line.step == stop_at:
            raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", cut)
        with pytest.raises(CutOffError):
            run(write_config("cut"), *options)
    again = run(write_config("cut"), *options)
    first, second = (list_checkpoints(folder.checkpoints)[-1] for folder in (whole, again))
    assert first.step == second.step > stop_at
    ours, theirs = first.weights(), second.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert first.state()["weighting"] == second.state()["weighting"]
    assert [line["weights"] for line in lines(whole, "epoch")] == [line["weights"] for line in lines(again, "epoch")]
    if method == "dwa":
        assert len({tuple(line["weights"].values()) for line in lines(whole, "step")}) == 2


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--objective.gamma=0", "--objective.psi=0"), {"video_regression", "text_regression", "prompt_to_video"}),
        (("--teacher.prompting=none",), {"video_regression", "text_regression", "video_to_text"}),
        (("--teacher.prompting=static",), set(TERMS)),
        (("--objective.step1=false", "--objective.step2=false"), set(TERMS[:3])),
    ],
)
def test_terms_with_weight_0_are_excluded(write_config, options: tuple[str, ...], names: set[str]) -> None:
    folder = run(write_config(), *options, "--objective.weighting=famo", "--trainer.max_steps=2")
    for line in lines(folder, "step"):
        assert set(line["weights"]) == names
        assert sum(line["weights"].values()) == pytest.approx(1.0)
        expected = sum(weight * line[name] for name, weight in line["weights"].items())
        assert line["total"] == pytest.approx(expected, rel=1e-5)
    config = load_config(write_config(), options)
    task = build(config, Splits.open(config).train.sources)
    assert {name for name, weight in task.weights.items() if weight > 0} == names <= lines(folder, "step")[0].keys()


@pytest.mark.parametrize("method", ["uw_so", "famo"])
def test_batch_without_video_reuses_the_last_teacher_terms(write_config, tmp_path, method: str) -> None:
    random = np.random.default_rng(0)
    data = tmp_path / "gaps"
    with DatasetWriter(data, features={"visual": FeatureSpec((2, 1, 8))}, label=LabelSpec(), provenance={}) as writer:
        for split, clips in (("train", 9), ("valid", 2)):
            for i in range(clips):
                visual = None if i % 3 and split == "train" else random.normal(size=(2, 1, 8))
                clip = Clip(f"{split}{i}", f"{split}{i}", "some words", float(i % 5 - 2), "test", {"visual": visual})
                writer.write(split, clip)
    options = ("--data.missing=mask", "--data.batch_size=1", "--teacher.use_face=false", "--trainer.epochs=3")
    folder = run(write_config(uri=data), *options, f"--objective.weighting={method}")
    steps = lines(folder, "step")
    assert sum(line["video_regression"] == 0 for line in steps) == 18
    assert all(np.isfinite(list(line["weights"].values())).all() for line in steps)
    last = list_checkpoints(folder.checkpoints)[-1].state()["weighting"]["last"]
    seen = {name: [line[name] for line in steps if line[name] != 0][-1] for name in TERMS}
    assert last == pytest.approx([seen[name] for name in TERMS], rel=1e-6)


def test_invalid_weightings_are_rejected(write_config) -> None:
    with pytest.raises(UserError, match=r"weighting requires objective.kind to be 'step', .* but it is 'none'"):
        load_config(write_config(), ["--objective.kind=none", "--objective.weighting=equal"])
    with pytest.raises(UserError, match=r"'uw-so', expected 'fixed'.*'uw_so', 'dwa'"):
        load_config(write_config(), ["--objective.weighting=uw-so"])
    with pytest.raises(UserError, match=r"objective.weighting.temperature is 0"):
        load_config(write_config(), ["--objective.weighting=dwa", "--objective.weighting.temperature=0"])

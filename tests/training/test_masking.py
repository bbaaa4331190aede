"""`data.missing: mask`, from null in a shard to the gradient: what a clip lacks bears on nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vadv_dist.cli import main
from vadv_dist.config import load_config
from vadv_dist.data.schema import Batch, Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.windows import LocalWindows
from vadv_dist.objectives import weighted_total
from vadv_dist.storage import read_json
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.splits import Splits

ROWS = 8


@pytest.fixture
def task_and_batch(write_config, tmp_path: Path) -> tuple[SentimentTask, Batch]:
    """A batch of eight clips of which every second lacks its face, read from a data set."""
    random = np.random.default_rng(0)
    features = {"visual": FeatureSpec((2, 1, 8)), "face": FeatureSpec((4, 3))}
    with DatasetWriter(tmp_path / "gaps", features=features, label=LabelSpec(), provenance={}) as writer:
        for split in ("train", "valid"):
            for i in range(ROWS):
                face = None if i % 2 else random.normal(size=(4, 3))
                values = {"visual": random.normal(size=(2, 1, 8)), "face": face}
                label = float(random.integers(-3, 4))
                writer.write(split, Clip(f"{split}{i}", f"{split}{i}", "some words", label, "test", values))
    config = load_config(write_config(uri=tmp_path / "gaps"), ["--data.missing=mask"])
    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    task.step.eval()
    windows = LocalWindows(splits.train)
    window = windows.get((0,))
    windows.close()
    rows = np.arange(ROWS)
    return task, task.collator(window, rows, global_rows=rows)


def logits(task: SentimentTask, batch: Batch) -> dict[str, torch.Tensor]:
    outputs: dict[str, torch.Tensor] = task.step(batch)[0]
    return outputs


def with_field(batch: Batch, name: str, value: torch.Tensor) -> Batch:
    return replace(batch, fields={**batch.fields, name: value})


def with_presence(batch: Batch, name: str, value: torch.Tensor) -> Batch:
    return replace(batch, present={**batch.present, name: value})


def test_null_in_a_shard_reaches_the_model_as_a_mask(task_and_batch) -> None:
    _, batch = task_and_batch
    assert batch.present["face"].tolist() == [1, 0] * 4
    assert batch.present["visual"].tolist() == [1] * ROWS
    assert batch.counts == {"rows": ROWS, "visual": ROWS, "face": ROWS // 2, "complete": ROWS // 2}


def test_content_of_a_masked_face_does_not_affect_logits(task_and_batch) -> None:
    task, batch = task_and_batch
    filled = batch.fields["face"].clone()
    filled[1::2] = float("nan")
    plain, poisoned = logits(task, batch), logits(task, with_field(batch, "face", filled))
    assert {"text_logit", "video_logit", "prompt_logit", "class_logits"} <= plain.keys()
    for name, values in plain.items():
        assert torch.isfinite(values).all()
        assert torch.equal(values, poisoned[name]), name


def test_a_masked_face_is_not_a_face_of_zeros(task_and_batch) -> None:
    task, batch = task_and_batch
    masked = logits(task, batch)["video_logit"]
    unmasked = logits(task, with_presence(batch, "face", torch.ones(ROWS)))["video_logit"]
    assert torch.equal(masked[::2], unmasked[::2])
    assert (masked[1::2] - unmasked[1::2]).abs().min() > 1e-6


def test_masked_faces_alone_give_the_facial_branch_no_gradient(task_and_batch) -> None:
    task, batch = task_and_batch
    for has_face, expected in ((torch.zeros(ROWS), False), (batch.present["face"], True)):
        task.step.zero_grad()
        given = with_presence(batch, "face", has_face)
        weighted_total(task.step(given)[1], task.weights).backward()
        branch = task.step.teacher.face_branch.parameters()
        moved = any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in branch)
        assert moved is expected
        assert float(task.step.teacher.video_head.dense.weight.grad.abs().max()) > 0


@pytest.mark.slow
def test_evaluation_reports_the_number_of_clips_of_each_output(
    write_config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    features = {"visual": FeatureSpec((2, 1, 8)), "face": FeatureSpec((4, 3))}
    with DatasetWriter(tmp_path / "half", features=features, label=LabelSpec(), provenance={}) as writer:
        for split in ("train", "valid"):
            for i in range(ROWS):
                visual = None if i % 4 == 0 else random.normal(size=(2, 1, 8))
                values = {"visual": visual, "face": random.normal(size=(4, 3))}
                label = float(random.integers(-3, 4))
                writer.write(split, Clip(f"{split}{i}", f"{split}{i}", "some words", label, "test", values))
    config = write_config(uri=tmp_path / "half")
    assert main(["train", "--config", str(config), "--data.missing=mask", "--trainer.epochs=1"]) == 0
    run = str(tmp_path / "runs" / "run")
    assert main(["evaluate", run, "--split", "valid"]) == 0
    said = capsys.readouterr().out
    assert f"Student, {ROWS} clips" in said
    assert f"Video logit, {ROWS * 3 // 4} clips" in said
    document = read_json(tmp_path / "runs" / "run" / "evaluation-valid.json")
    counts = [document[name]["clips"] for name in ("student", "video", "prompt")]
    assert counts == [ROWS, ROWS * 3 // 4, ROWS * 3 // 4]

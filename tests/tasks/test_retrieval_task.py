"""The retrieval task: what it trains on, and how it is measured."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.data.schema import Batch
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import LocalWindows
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.launch.worker import train_locally
from vadv_dist.objectives.base import weighted_total
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks.retrieval import RetrievalTask, accuracy, vectors
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.splits import Splits

QUIET = Console(quiet=True, stderr=True)


def task_and_batch(config_path: Path, *overrides: str, rows: int = 90) -> tuple[RetrievalTask, Batch]:
    config = load_config(config_path, overrides)
    train_split = Splits.open(config).train
    task = RetrievalTask(config, train_split.sources)
    plan = train_split.plan(config.data, seed=1, epoch=0, batch_size=rows)
    windows = LocalWindows(train_split)
    (step,) = BatchStream(plan=plan, windows=windows, collator=task.collator).steps()
    windows.close()
    return task, step.micro[0]


def test_training_raises_map_and_evaluation_writes_embeddings(write_retrieval_config) -> None:
    config = load_config(write_retrieval_config(), ["--trainer.epochs=8"])
    result = train(config, QUIET)
    folder = RunFolder.of(config)
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    maps = [line["validation"]["student"]["map"] for line in lines if line["kind"] == "epoch"]
    assert result.validation["map"] == max(maps) > max(0.6, maps[0])
    names = {term.name for term in result.task.terms}
    assert names >= {"explicit", "gap", "implicit", "video_class", "prompt_class", "prompt_to_video", "video_to_audio"}
    evaluation = evaluate_run(folder.root, "test")
    assert evaluation.rows == 30
    assert 0.6 < evaluation.metrics["student"]["map"] <= 1
    assert 0 <= evaluation.metrics["video"]["accuracy"] <= 1
    table = pq.read_table(folder.root / "predictions-test.parquet")
    embeddings = np.array(table["embeddings"].to_pylist(), np.float32).reshape(30, 2, -1)
    lacks_audio = np.array([name in {"test-9", "test-19", "test-29"} for name in table["clip_id"].to_pylist()])
    assert np.array_equal(np.isnan(embeddings[:, 0]).all(axis=1), lacks_audio)
    assert np.isnan(embeddings[:, 1]).all(axis=1).sum() == 1  # test-14


def test_resumed_run_ends_with_the_same_weights(write_retrieval_config) -> None:
    whole, cut = (load_config(write_retrieval_config(name)) for name in ("whole", "cut"))
    asked = iter([False] * 5)
    for config in (whole, cut):
        RunFolder.of(config).claim(config)
    train_locally(whole, lambda line: None, lambda: False)
    assert train_locally(cut, lambda line: None, lambda: next(asked, True)).stopped is None
    train_locally(cut, lambda line: None, lambda: False)
    first, second = (list_checkpoints(RunFolder.of(c).checkpoints)[-1].weights() for c in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_clips_without_a_modality_train_nothing(write_retrieval_config) -> None:
    task, batch = task_and_batch(write_retrieval_config())
    task.step.eval()

    def loss(changed: Batch) -> torch.Tensor:
        return weighted_total(task.step(changed)[1], task.weights)

    complete = (batch.present["audio"] * batch.present["visual"]).bool()
    assert int(batch.counts["complete"]) == int(complete.sum()) < len(complete)
    other = {name: values.clone() for name, values in batch.fields.items()}
    for values in other.values():
        values[~complete] = 50.0
    torch.testing.assert_close(loss(dataclasses.replace(batch, fields=other)), loss(batch), rtol=1e-6, atol=0)

    kept = {name: values[complete] for name, values in batch.fields.items()}
    ones = torch.ones(int(complete.sum()))
    alone = dataclasses.replace(
        batch,
        fields=kept,
        present=dict.fromkeys(kept, ones),
        label=batch.label[complete],
        valid=ones,
        row_id=batch.row_id[complete],
    )
    torch.testing.assert_close(loss(alone), loss(batch), rtol=1e-5, atol=0)


def test_shares_of_micro_batches_add_up(write_retrieval_config) -> None:
    """All terms but the gap between means, which is not a mean over rows."""
    task, batch = task_and_batch(write_retrieval_config())
    task.step.eval()
    whole = task.step(batch)[1]
    halves = []
    for rows in (slice(0, 40), slice(40, None)):
        take = {name: values[rows] for name, values in batch.fields.items()}
        present = {name: values[rows] for name, values in batch.present.items()}
        part = dataclasses.replace(
            batch,
            fields=take,
            present=present,
            label=batch.label[rows],
            valid=batch.valid[rows],
            row_id=batch.row_id[rows],
        )
        halves.append(task.step(part)[1])
    for name in whole.keys() - {"gap"}:
        torch.testing.assert_close(halves[0][name] + halves[1][name], whole[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("onto", ["audio", "visual"])
def test_distillation_onto_one_modality_leaves_the_other_alone(write_retrieval_config, onto: str) -> None:
    other = {"audio": "visual", "visual": "audio"}[onto]
    task, batch = task_and_batch(write_retrieval_config(), f"--task.distil_onto=[{onto}]")
    names = [term.name for term in task.description.terms]
    assert f"video_to_{onto}" in names
    assert f"video_to_{other}" not in names
    terms = task.step(batch)[1]
    terms[f"video_to_{onto}"].backward()
    encoders = task.student.encoders
    assert all(p.grad is not None for p in encoders[onto].parameters())
    assert all(p.grad is None for p in encoders[other].parameters())


def test_the_direct_route_ties_prompt_and_video_to_each_modality(write_retrieval_config) -> None:
    task, batch = task_and_batch(write_retrieval_config(), "--objective.route=direct")
    task.step.eval()
    outputs, terms = task.step(batch)
    assert "prompt_to_video" not in terms
    complete = batch.valid * batch.present["audio"] * batch.present["visual"] > 0
    for source, logit in (("prompt", "prompt_logit"), ("video", "video_logit")):
        for onto in ("audio", "visual"):
            distance = (outputs[logit] - outputs[f"{onto}_logit"])[complete].square().mean()
            torch.testing.assert_close(terms[f"{source}_to_{onto}"], distance)
    assert task.weights["prompt_to_audio"] == 10
    assert task.weights["video_to_audio"] == 1


def test_every_parameter_gets_a_gradient(write_retrieval_config) -> None:
    for overrides in (
        (),
        ("--objective.step1=false",),
        ("--objective.route=direct",),
        ("--objective.route=direct", "--objective.detach_targets=true", "--objective.step2=false"),
        ("--teacher.prompting=static",),
        ("--teacher.prompting=none",),
        ("--objective.kind=none",),
    ):
        task, batch = task_and_batch(write_retrieval_config(), *overrides)
        task.check(torch.device("cpu"))
        weighted_total(task.step(batch)[1], task.weights).backward()
        assert [n for n, p in task.step.named_parameters() if p.requires_grad and p.grad is None] == []


def test_unused_parameters_are_named(write_retrieval_config) -> None:
    task, _ = task_and_batch(write_retrieval_config())
    task.step.student.extra = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match=r"no gradient: student\.extra\.weight, student\.extra\.bias"):
        task.check(torch.device("cpu"))


def test_vectors_are_means_over_frames_and_tokens() -> None:
    frames = torch.arange(24.0).reshape(1, 2, 3, 4).half()
    torch.testing.assert_close(vectors(frames), frames.float().mean(dim=(1, 2)))
    torch.testing.assert_close(vectors(frames[:, :, 0]), frames[:, :, 0].float().mean(dim=1))
    torch.testing.assert_close(vectors(frames[:, 0, 0]), frames[:, 0, 0].float())


def test_accuracy_leaves_out_clips_without_scores() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [np.nan, np.nan]], np.float32)
    assert accuracy(scores, np.array([1, 1, 0])) == 0.5
    assert np.isnan(accuracy(scores[2:], np.array([0])))

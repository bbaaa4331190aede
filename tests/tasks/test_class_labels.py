"""Sentiment with labels that are classes: what is trained, what is refused, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForSequenceClassification

from vadv_dist.config import load_config
from vadv_dist.config.rival_sections import COMPARE_FEATURES
from vadv_dist.data.collate import MASK, TOKENS
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DatasetWriter
from vadv_dist.data.sources import Sources
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.synth import make_dataset
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.launch.dry_run import describe as dry_run
from vadv_dist.reporting.compare import compare_many
from vadv_dist.reporting.report import write_report
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.tasks import build
from vadv_dist.training.evaluate import evaluate_run
from vadv_dist.training.evaluate_other_data import evaluate
from vadv_dist.training.splits import Splits

QUIET = Console(quiet=True, stderr=True)
WORDS = ("awful", "plain", "superb")
NO_DROPOUT = ("--student.dropout=0", "--student.encoder_dropout=0")
SMALL = {"crd": ["--objective.negatives=32", "--objective.width=8"]}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic clips of three classes."""
    out = tmp_path_factory.mktemp("three") / "data"
    make_dataset(out, num_clips=150, seed=3, num_classes=3)
    return out


def write_words(out: Path, classes: int = 3, rows: int = 90, *, without_words: str = "") -> Path:
    """Clips whose class is said by one word and seen in one feature; of a split, the first may have no words."""
    label = LabelSpec.of_classes(classes, ("bad", "middling", "good")[:classes])
    with DatasetWriter(out, features={"visual": FeatureSpec((2, 1, 4))}, label=label, provenance={}) as writer:
        for i in range(rows):
            split, one = ("train", "train", "train", "valid", "test")[i // classes % 5], i % classes
            text = "" if split == without_words and i // classes % 5 < 4 else f"the film was {WORDS[one]}"
            visual = np.full((2, 1, 4), one, np.float16)
            writer.write(split, Clip(f"c{i}", f"v{i}", text, float(one), "t", {"visual": visual}))
    return out


def open_run(path: Path, *overrides: str) -> RunFolder:
    config = load_config(path, overrides)
    train(config, QUIET)
    return RunFolder.of(config)


def same_weights(first: RunFolder, second: RunFolder) -> bool:
    a, b = (list_checkpoints(folder.checkpoints)[-1].weights() for folder in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("classes", [2, 3])
def test_training_learns_classes_and_evaluation_scores_them(
    write_config: Callable[..., Path], tmp_path: Path, classes: int
) -> None:
    data = write_words(tmp_path / "data", classes)
    extra = "objective: {kind: step}"
    path = write_config(uri=data, extra=extra)
    options = ["--teacher.use_face=false", "--trainer.epochs=12", "--optimizer.lr=5.0e-3", "--data.batch_size=8"]
    folder = open_run(path, *options, *NO_DROPOUT)
    result = folder.result()
    assert result is not None
    assert result.task.score == "accuracy"
    assert result.task.classes == ("bad", "middling", "good")[:classes]
    assert result.validation["accuracy"] == 1.0
    assert result.labels is None
    assert result.calibration is None

    evaluation = evaluate_run(folder.root, "test")
    table = pq.read_table(folder.root / "predictions-test.parquet")
    label = table["label"].to_numpy()
    for output in evaluation.task.outputs:
        probability = np.array(table[output.column].to_pylist())
        assert probability.shape == (len(label), classes)
        np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
        predicted = probability.argmax(axis=1)
        assert evaluation.metrics[output.name]["accuracy"] == accuracy_score(label, predicted)
        expected = f1_score(label, predicted, average="macro", zero_division=0)
        assert evaluation.metrics[output.name]["f1_macro"] == pytest.approx(expected)
    assert evaluation.metrics["student"]["accuracy"] == 1.0
    page = write_report(folder.root).read_text()
    assert f"Clips by class of label and of student: {len(label)} of {len(label)} in the same class." in page
    assert page.count('<td class="number">100.0%</td>') >= 3 * classes


def test_runs_are_compared_by_accuracy_and_f1(write_config: Callable[..., Path], three: Path) -> None:
    taught = open_run(write_config("taught", uri=three), "--trainer.max_steps=12", "--optimizer.lr=1.0e-2")
    alone = open_run(write_config("alone", uri=three), "--objective.kind=none", "--trainer.max_steps=3")
    for folder in (taught, alone):
        evaluate_run(folder.root, "test")
    found = compare_many([taught.root, alone.root])
    differences = found.runs[1].differences
    assert differences.keys() == {"accuracy", "f1_macro", "f1_weighted"}
    own, other = ([run.value(metric) for metric in found.task.metrics] for run in (found.runs[1], found.runs[0]))
    for metric, a, b in zip(found.task.metrics, own, other, strict=True):
        interval = differences[metric.key]
        assert interval is not None
        assert interval.mean == pytest.approx(a - b)
        assert interval.low <= interval.mean <= interval.high
    assert "Accuracy" in write_report(taught.root, compare=[alone.root]).read_text()


def test_the_first_loss_is_that_of_the_training_shares(write_config: Callable[..., Path], three: Path) -> None:
    config = load_config(write_config(uri=three), ["--optimizer.lr=1.0e-9", *NO_DROPOUT])
    splits = Splits.open(config)
    task = build(config, splits.train.sources)
    histogram = Dataset.open(three).manifest.statistics["train"].label_histogram
    assert histogram is not None
    shares = (np.array(histogram.counts) + 1) / (sum(histogram.counts) + 3)
    bias = task.step.get_submodule("student").out.bias.detach()
    np.testing.assert_allclose(bias.softmax(0), shares, rtol=1e-5)


def test_the_students_loss_is_that_of_transformers(write_config: Callable[..., Path], three: Path) -> None:
    folder = open_run(write_config(uri=three), "--trainer.max_steps=4")
    config = load_config(write_config(uri=three), NO_DROPOUT)
    task = build(config, Sources.open(config), weights=False)
    task.step.load_state_dict(list_checkpoints(folder.checkpoints)[-1].weights())
    train_split = Splits.open(config).train
    windows = LocalWindows(train_split)
    plan = train_split.plan(config.data, seed=1, epoch=0)
    batch = next(iter(BatchStream(plan=plan, windows=windows, collator=task.collator).steps())).micro[0]
    windows.close()
    _, terms = task.step.eval()(batch)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder.student)
    assert theirs.config.id2label == {0: "negative", 1: "neutral", 2: "positive"}
    tokens = {name: batch.fields[name] for name in (TOKENS, MASK)}
    found = theirs(**tokens, labels=batch.label.long()).loss
    torch.testing.assert_close(terms["text_class"], found, rtol=1e-5, atol=1e-6)


def test_resume_after_a_stop_is_bit_identical(
    write_config: Callable[..., Path], three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_run(write_config("whole", uri=three))

    class CutOffError(Exception):
        pass

    original = MetricsLog.append

    def append(self: MetricsLog, line: object) -> None:
        original(self, line)
        if getattr(line, "step", 0) == 9:
            raise CutOffError

    path = write_config("cut", uri=three)
    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "append", append)
        with pytest.raises(CutOffError):
            open_run(path)
    assert list_checkpoints(RunFolder.of(load_config(path, [])).checkpoints)
    assert same_weights(whole, open_run(path))


@pytest.mark.parametrize("kind", ["none", "step", "kd", "dkd", "dist", *COMPARE_FEATURES])
def test_every_objective_trains_a_student_of_classes(write_config: Callable[..., Path], three: Path, kind: str) -> None:
    overrides = [f"--objective.kind={kind}", "--optimizer.lr=3.0e-3", *NO_DROPOUT, *SMALL.get(kind, [])]
    config = load_config(write_config(uri=three), overrides)
    split = Splits.open(config).train
    task = build(config, split.sources)
    task.check(CPU)
    windows = LocalWindows(split)
    plan = split.plan(config.data, seed=1, epoch=0)
    batch = next(iter(BatchStream(plan=plan, windows=windows, collator=task.collator).steps())).micro[0]
    windows.close()
    engine = build_engine(config, task.step, task.parameter_groups(), Distributed())
    lines = [engine.step([batch], lambda _: task.weights, 1.0, weights_known=True)[0][0] for _ in range(12)]
    assert set(lines[0]) >= {term.name for term in task.description.terms}
    assert float(lines[-1]["text_class"]) < float(lines[0]["text_class"])


@pytest.mark.parametrize("kind", ["kd", "dkd"])
def test_class_probabilities_need_no_prompts_where_labels_are_classes(
    write_config: Callable[..., Path], three: Path, kind: str
) -> None:
    config = load_config(write_config(uri=three), [f"--objective.kind={kind}", "--teacher.prompting=none"])
    build(config, Sources.open(config)).check(CPU)


def test_dry_run_describes_a_run_of_classes(write_config: Callable[..., Path], three: Path) -> None:
    found = dry_run(load_config(write_config(uri=three), []))
    assert found["parameters"]["student.head"] == 128 * 32 + 32 + 32 * 3 + 3


def test_guard_is_the_ratio_of_kappas(write_config: Callable[..., Path], three: Path) -> None:
    config = load_config(write_config(uri=three), [])
    task = build(config, Sources.open(config))
    assert task.guard({"video": {"kappa": 0.2}, "student": {"kappa": 0.4}}) == 0.5
    assert task.guard({"video": {"kappa": 0.4}, "student": {"kappa": 0.2}}) == 1
    assert task.guard({"video": {"kappa": -0.1}, "student": {"kappa": 0.2}}) == 0
    assert task.guard({"video": {"kappa": float("nan")}, "student": {"kappa": 0.2}}) == 0


@pytest.mark.parametrize(
    ("without_words", "expected"),
    [("train", "has no words in its train split"), ("valid", "has no words in its valid split")],
)
def test_clips_without_words_are_refused(
    write_config: Callable[..., Path], tmp_path: Path, without_words: str, expected: str
) -> None:
    data = write_words(tmp_path / "data", without_words=without_words)
    with pytest.raises(UserError) as caught:
        Sources.open(load_config(write_config(uri=data), []))
    assert expected in str(caught.value)
    assert "or set task.kind: retrieval" in str(caught.value)


def test_calibration_is_refused_only_where_it_was_asked_for(write_config: Callable[..., Path], three: Path) -> None:
    with pytest.raises(UserError, match=r"student\.calibrate is 'on', but .* has class labels"):
        Sources.open(load_config(write_config(uri=three), ["--student.calibrate=on"]))
    Sources.open(load_config(write_config(uri=three), ["--objective.beta=3"]))


def test_run_records_are_read_again(write_config: Callable[..., Path], three: Path, tmp_path: Path) -> None:
    folder = open_run(write_config(uri=three), "--trainer.max_steps=3")
    starts = [json.loads(line) for line in folder.metrics_path.read_text().splitlines() if '"start"' in line]
    assert starts[0]["task"]["classes"] == ["negative", "neutral", "positive"]
    assert evaluate(folder.root, "valid").metrics["student"]["clips"] > 0

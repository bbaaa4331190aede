"""Calibrated runs: evaluation and export agree, result.json records the line, and a resumed run has the same."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from weak_video import write_weak_video

from vadv_dist.config import load_config
from vadv_dist.inference.export import load_student
from vadv_dist.inference.predict import Student
from vadv_dist.launch.driver import train
from vadv_dist.runs.checkpoint import checkpoint_at
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.metrics_log import MetricsLog
from vadv_dist.runs.records import Line, RunResult
from vadv_dist.training.evaluate import evaluate_run

LEARNS = ("--teacher.use_face=false", "--student.pooling=mean", "--optimizer.lr=3e-3", "--student.calibrate=on")


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose words say the label."""
    return write_weak_video(tmp_path_factory.mktemp("weak") / "data")


def run(config_path: Path, *overrides: str, console: Console | None = None) -> tuple[RunFolder, RunResult]:
    config = load_config(config_path, overrides)
    train(config, console or Console(quiet=True, stderr=True))
    folder = RunFolder.of(config)
    result = folder.result()
    assert result is not None
    return folder, result


def predictions(folder: RunFolder, split: str) -> dict[str, np.ndarray]:
    table = pq.read_table(folder.root / f"predictions-{split}.parquet")
    return {name: np.array(table[name].to_pylist()) for name in ("text", "label", "text_logit")}


def test_evaluation_and_export_are_calibrated_alike(write_config, weak: Path) -> None:
    said = io.StringIO()
    folder, result = run(write_config(uri=weak), *LEARNS, console=Console(file=said, width=300))
    plain, _ = run(write_config("plain", uri=weak), *LEARNS, "--student.calibrate=off")
    line = result.calibration
    assert line is not None
    assert line.slope is not None and line.intercept is not None  # noqa: PT018  # for the type checker
    assert str(line) in said.getvalue()
    for each in (folder, plain):
        evaluate_run(each.root, "valid")
    found, before = predictions(folder, "valid"), predictions(plain, "valid")
    np.testing.assert_allclose(found["text_logit"], line.slope * before["text_logit"] + line.intercept, atol=1e-5)
    error = np.abs(found["text_logit"] - found["label"]).mean()
    assert (line.mae_before, line.mae_after) == pytest.approx((result.validation["mae"], error), abs=1e-5)
    assert np.polyfit(found["text_logit"], found["label"], 1) == pytest.approx([1.0, 0.0], abs=1e-4)
    student = Student.load(folder.student)
    np.testing.assert_allclose(student.predict(found["text"].tolist()), found["text_logit"], atol=1e-5)
    assert str(line) in (folder.student / "README.md").read_text()
    # Training is not changed by it.
    ours, theirs = (checkpoint_at(each.checkpoints, result.best_step).weights() for each in (folder, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_constant_predictions_are_left_alone_and_it_is_said(write_config, weak: Path) -> None:
    said = io.StringIO()
    options = (*LEARNS, "--optimizer.lr=1e-12", "--optimizer.new_module_lr_factor=1", "--trainer.epochs=1")
    options += ("--student.pooling=cls",)
    folder, result = run(write_config(uri=weak), *options, console=Console(file=said, width=300))
    line = result.calibration
    assert line is not None
    assert line.left_out == "the predictions for validation are constant"
    assert f"not calibrated: {line.left_out}" in said.getvalue()
    assert "calibrated" not in (folder.student / "README.md").read_text().partition("## Configuration")[0]
    weights = checkpoint_at(folder.checkpoints, result.best_step).weights()
    exported, _, _ = load_student(folder.student)
    assert torch.equal(exported.out.weight, weights["student.out.weight"])


@pytest.mark.parametrize(
    ("overrides", "is_calibrated"),
    [
        ([], False),
        (["--objective.psi=10"], True),
        (["--objective.weighting=dwa"], True),
        (["--objective.kind=none"], False),
        (["--objective.kind=none", "--student.calibrate=true"], True),
        (["--objective.psi=10", "--student.calibrate=off"], False),
    ],
)
def test_calibration_is_automatic_where_the_weights_are_not_the_paper_s(overrides: list, is_calibrated: bool) -> None:
    assert load_config(None, overrides).is_calibrated == is_calibrated


class CutOffError(Exception):
    pass


def test_interrupted_run_has_the_same_line(write_config, weak: Path, monkeypatch) -> None:
    options = (*LEARNS, "--trainer.checkpoint_every_steps=3", "--trainer.epochs=3", "--data.batch_size=40")
    _, whole = run(write_config("whole", uri=weak), *options)
    original = MetricsLog.append

    def cut(self: MetricsLog, line: Line) -> None:
        original(self, line)
        if line.step == 14:  # after the second epoch's checkpoint
            raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(MetricsLog, "append", cut)
        with pytest.raises(CutOffError):
            run(write_config("cut", uri=weak), *options)
    folder, again = run(write_config("cut", uri=weak), *options)
    assert again.calibration == whole.calibration is not None
    notes = [raw for raw in map(json.loads, folder.metrics_path.read_text().splitlines()) if raw["kind"] == "note"]
    assert [note["what"] for note in notes] == [str(whole.calibration)]

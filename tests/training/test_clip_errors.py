"""Errors of the best student on each validation clip."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.evaluation.calibration import fit_line
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.training.clip_errors import copy_clip_errors, error_quantiles, read_clip_errors, write_clip_errors


def test_clip_errors_belong_to_the_step_that_wrote_them_last(tmp_path: Path) -> None:
    names = [("a", "1"), ("b", "1")]
    label = np.array([1.0, -2.0], np.float32)
    for step, logit in ((3, [0.0, 0.0]), (7, [1.5, -1.0])):
        prediction = np.array(logit, np.float32)
        write_clip_errors(tmp_path, names, np.abs(prediction - label), step, label=label, prediction=prediction)
    assert read_clip_errors(tmp_path, 7) == {("a", "1"): 0.5, ("b", "1"): 1.0}
    assert read_clip_errors(tmp_path, 3) is None
    (tmp_path / "copy").mkdir()
    copy_clip_errors(tmp_path, tmp_path / "copy")
    assert read_clip_errors(tmp_path / "copy", 7) == read_clip_errors(tmp_path, 7)
    copy_clip_errors(tmp_path / "nothing", tmp_path / "copy")
    assert read_clip_errors(tmp_path / "nothing", 7) is None


def test_error_quantiles_are_those_of_calibrated_predictions(tmp_path: Path) -> None:
    names = [("a", str(n)) for n in range(99)]
    label = np.arange(99, dtype=np.float32)
    prediction = label / 2 - 1
    write_clip_errors(tmp_path, names, np.abs(prediction - label), 3, label=label, prediction=prediction)
    quantiles = error_quantiles(tmp_path, 3, None)
    assert quantiles is not None
    assert quantiles.half_width(0.9) == pytest.approx(89 / 2 + 1)
    line = fit_line(prediction, label)
    assert line.slope == pytest.approx(2)
    calibrated = error_quantiles(tmp_path, 3, line)
    assert calibrated is not None
    assert calibrated.half_width(0.9) == pytest.approx(0, abs=1e-5)
    assert error_quantiles(tmp_path, 4, None) is None
    embeddings = np.zeros((99, 2, 4), np.float32)
    write_clip_errors(tmp_path, names, label, 5, label=label, prediction=embeddings)
    assert error_quantiles(tmp_path, 5, None) is None


def test_run_keeps_the_clip_errors_of_its_best_checkpoint(write_config) -> None:
    config = load_config(write_config(), ["--trainer.epochs=3", "--optimizer.lr=0.01"])
    result = train(config, Console(quiet=True, stderr=True)).to_json()
    errors = read_clip_errors(RunFolder.of(config).root, result["best_step"])
    assert errors is not None
    assert np.mean(list(errors.values())) == pytest.approx(result["validation"]["mae"], rel=1e-5)

"""Errors of the best student on each validation clip."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.evaluation.calibration import fit_line
from vadv_dist.evaluation.conformal import ErrorQuantiles
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage import read_json
from vadv_dist.tasks.sentiment import errors_of
from vadv_dist.training.clip_errors import copy_clip_errors, read_clip_errors, read_clip_predictions, write_clip_errors


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


def test_predictions_are_kept_if_they_are_numbers(tmp_path: Path) -> None:
    names, label = [("a", "1"), ("a", "2")], np.array([1, 2], np.float32)
    write_clip_errors(tmp_path, names, label, 3, label=label, prediction=label / 2)
    known = read_clip_predictions(tmp_path, 3)
    assert known is not None
    np.testing.assert_array_equal(known, [label / 2, label])
    assert read_clip_predictions(tmp_path, 4) is None
    write_clip_errors(tmp_path, names, label, 5, label=label, prediction=np.zeros((2, 2, 4), np.float32))
    assert read_clip_predictions(tmp_path, 5) is None
    assert read_clip_errors(tmp_path, 5) is not None


def test_export_of_a_run_has_the_errors_of_its_student(write_config) -> None:
    config = load_config(write_config(), ["--trainer.epochs=1"])
    result = train(config, Console(quiet=True, stderr=True))
    known = read_clip_predictions(RunFolder.of(config).root, result.best_step)
    assert known is not None
    prediction, label = known
    errors = read_json(RunFolder.of(config).student / "vadv_export.json")["errors"]
    expected = ErrorQuantiles.of(np.abs(prediction - label))
    assert errors["clips"] == expected.clips
    assert expected.half_width(0.5) == pytest.approx(errors["widths"][49], abs=1e-5)


def test_errors_are_those_of_calibrated_predictions() -> None:
    label = np.arange(99, dtype=np.float32)
    prediction = label / 2 - 1
    assert errors_of(prediction, label, None).half_width(0.9) == pytest.approx(89 / 2 + 1)
    assert errors_of(prediction, label, fit_line(prediction, label)).half_width(0.9) == pytest.approx(0, abs=1e-4)


def test_run_keeps_the_clip_errors_of_its_best_checkpoint(write_config) -> None:
    config = load_config(write_config(), ["--trainer.epochs=3", "--optimizer.lr=0.01"])
    result = train(config, Console(quiet=True, stderr=True)).to_json()
    errors = read_clip_errors(RunFolder.of(config).root, result["best_step"])
    assert errors is not None
    assert np.mean(list(errors.values())) == pytest.approx(result["validation"]["mae"], rel=1e-5)

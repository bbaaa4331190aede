"""Every student and every objective trains on a GPU with recorded steps as it does without them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kinds import kinds, students, variant

from vadv_dist.config import Config, load_config
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Line, NoteLine, StepLine
from vadv_dist.tasks.students import STUDENTS

pytestmark = pytest.mark.gpu
STEPS = 30
RANDOM = {"vae-cca"}  # codes are drawn
NOT_RECORDED = {"c-dcca"}  # eigenvalues


def losses(config: Config, graphs: str) -> tuple[list[float], list[str]]:
    """The total of each step, and notes."""
    config = replace(
        config,
        run=replace(config.run, name=f"{config.run.name}-{graphs}"),
        engine=replace(config.engine, graphs=graphs),
    )
    folder = RunFolder.of(config)
    folder.root.mkdir(parents=True)
    folder.claim(config)
    totals: list[float] = []
    notes: list[str] = []

    def show(line: Line) -> None:
        if isinstance(line, StepLine):
            totals.append(line.terms["total"])
        elif isinstance(line, NoteLine):
            notes.append(line.what)

    train_locally(config, show, lambda: False)
    return totals, notes


def compare(config: Config) -> None:
    name = config.run.name
    eager, _ = losses(config, "off")
    recorded, notes = losses(config, "on")
    assert any("cannot be recorded" in note for note in notes) == (config.student.kind in NOT_RECORDED), name
    if config.student.kind not in RANDOM:
        np.testing.assert_allclose(recorded, eager, rtol=1e-3, atol=1e-4, err_msg=name)


OPTIONS = [
    f"--trainer.max_steps={STEPS}",
    "--trainer.epochs=20",
    "--trainer.use_gpu=true",
    "--trainer.precision=fp32",
    "--optimizer.eps=1e-3",  # AdamW would turn rounding in gradients near 0 into whole updates
    "--student.dropout=0",
]


@pytest.mark.parametrize("kind", kinds("objective"))
def test_objective_of_sentiment(gpu: torch.device, write_config, kind: str) -> None:
    config = load_config(write_config(), [*OPTIONS, "--student.encoder_dropout=0", "--teacher.dropout=0"])
    compare(variant(config, f"sentiment-{kind}", objective=kind))


@pytest.mark.parametrize("kind", kinds("objective"))
def test_objective_of_retrieval(gpu: torch.device, write_retrieval_config, kind: str) -> None:
    config = load_config(write_retrieval_config(), [*OPTIONS, "--teacher.dropout=0"])
    compare(variant(config, f"retrieval-{kind}", objective=kind))


@pytest.mark.parametrize("kind", students())
def test_student_of_retrieval(gpu: torch.device, write_retrieval_config, kind: str) -> None:
    run = variant(load_config(write_retrieval_config(), OPTIONS), f"student-{kind}", student=kind, objective="none")
    takes_steps = STUDENTS[type(run.student)].predicts_classes
    compare(variant(run, run.run.name, objective="step") if takes_steps else run)


def test_bf16_trains(gpu: torch.device, write_config, tmp_path: Path) -> None:
    """In bf16, which is what `auto` takes, both ways end near each other."""
    config = load_config(write_config(), [*OPTIONS, "--trainer.precision=auto", "--student.encoder_dropout=0"])
    eager, _ = losses(config, "off")
    recorded, notes = losses(config, "on")
    assert notes == []
    assert np.mean(recorded[-5:]) == pytest.approx(np.mean(eager[-5:]), rel=0.1)

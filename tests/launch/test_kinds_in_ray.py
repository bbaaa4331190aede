"""Every student, objective and kind of label trains on two Ray Train workers, as it does in one process."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import kinds, students, variant

from vadv_dist.config import Config, config_to_yaml, load_config
from vadv_dist.launch.smoke import trainer_here
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks.students import STUDENTS
from vadv_dist.training.splits import Splits

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SCRIPT = Path(__file__).with_name("kinds_in_ray.py")


def runs(sentiment: Config, classes: Config, retrieval: Config) -> list[Config]:
    """One run for each student and each objective that its task defines, and some with labels that are classes."""
    found = [variant(classes, f"classes-{kind}", objective=kind) for kind in ("none", "step", "dkd")]
    for kind in kinds("objective"):
        found.append(variant(sentiment, f"sentiment-{kind}", objective=kind))
        found.append(variant(retrieval, f"retrieval-{kind}", objective=kind))
    for kind in students():
        run = variant(retrieval, f"student-{kind}", student=kind, objective="none")
        takes_steps = STUDENTS[type(run.student)].predicts_classes
        found.append(variant(run, run.run.name, objective="step") if takes_steps else run)
    return found


def losses(folder: RunFolder) -> list[float]:
    lines = map(json.loads, folder.metrics_path.read_text().splitlines())
    return [line["total"] for line in lines if line["kind"] == "step"]


def losses_in_one_process(config: Config) -> list[float]:
    trainer = dataclasses.replace(config.trainer, num_workers=0)
    run = dataclasses.replace(config.run, name=f"{config.run.name}-alone")
    alone = dataclasses.replace(config, run=run, trainer=trainer)
    folder = RunFolder.of(alone)
    if config.run.name.startswith("student-"):
        folder.claim(alone)
        train_locally(alone, lambda line: None, lambda: False)
    else:  # whatever the objective, the student is the same, and is exported on Ray
        trainer_here(alone, Splits.open(alone)).fit()
    return losses(folder)


def test_every_kind_trains_on_two_ray_workers(
    cluster, write_config, write_retrieval_config, made_classes: Path, tmp_path: Path
) -> None:
    short = ["--trainer.max_steps=2", "--trainer.num_workers=2", "--trainer.cpus_per_worker=1"]
    # AdamW would turn rounding in gradients near 0 into whole updates.
    short.append("--optimizer.eps=1e-3")
    still = ["--student.dropout=0"]
    sentiment = load_config(write_config(), [*short, *still, "--student.encoder_dropout=0"])
    retrieval = load_config(write_retrieval_config(), [*short, *still])
    classes = load_config(write_config(uri=made_classes), [*short, *still, "--student.encoder_dropout=0"])
    configs = runs(sentiment, classes, retrieval)
    paths = []
    for config in configs:
        paths.append(tmp_path / f"{config.run.name}.yaml")
        paths[-1].write_text(config_to_yaml(config))
    on_ray = subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, paths)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=cluster.environment,
    )
    expected = {config.run.name: losses_in_one_process(config) for config in configs}
    said, _ = on_ray.communicate(timeout=1200)
    assert on_ray.returncode == 0, said[-3000:]
    for config in configs:
        assert RunFolder.of(config).result() is not None, config.run.name
        if config.student.kind != "vae-cca":  # each rank draws its codes
            found = losses(RunFolder.of(config))
            assert found == pytest.approx(expected[config.run.name], rel=1e-4), config.run.name

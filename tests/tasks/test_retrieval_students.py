"""Every retrieval student as a run: trained by the same command, with the same files behind it."""

import json

import pytest
import torch
from rich.console import Console

from vadv_dist.config import load_config
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.launch.driver import train
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks.retrieval import RetrievalTask
from vadv_dist.tasks.students import build_retrieval_student
from vadv_dist.training.evaluate import evaluate_run

QUIET = Console(quiet=True, stderr=True)
STUDENTS = {
    "dscmr": "{kind: dscmr, hidden: 32, width: 16}",
    "c-cca": "c-cca",
    "c-dcca": "{kind: c-dcca, hidden: 8, ridge: 0.01}",
    "tnn-c-cca": "{kind: tnn-c-cca, hidden: 16}",
    "cctl": "{kind: cctl, hidden: 16}",
    "instance-loss": "{kind: instance-loss, hidden: 32, width: 16}",
    "random": "random",
    "dclma": "{kind: dclma, hidden: 128, width: 16}",
    "vae-cca": "{kind: vae-cca, hidden: 32, width: 16}",
}
CLOSED = ("c-cca", "random")


@pytest.mark.parametrize("kind", STUDENTS)
def test_student_is_trained_evaluated_and_exported(write_retrieval_config, kind: str) -> None:
    config = load_config(write_retrieval_config(student=STUDENTS[kind], objective="none"))
    result = train(config, QUIET)
    folder = RunFolder.of(config)
    lines = [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert len(epochs) == (1 if kind in CLOSED else 2)
    assert result.stopped == ("closed_form" if kind in CLOSED else "epochs")
    evaluation = evaluate_run(folder.root, "test")
    assert 0 < evaluation.metrics["student"]["map"] <= 1
    assert (folder.root / "student" / "model.safetensors").is_file()


def test_closed_form_is_the_same_after_a_stop_and_for_every_batch_size(write_retrieval_config) -> None:
    weights = []
    for name, rows in (("one", 64), ("other", 7)):
        config = load_config(
            write_retrieval_config(name, student="c-cca", objective="none"), [f"--trainer.eval_batch_size={rows}"]
        )
        RunFolder.of(config).claim(config)
        train_locally(config, lambda line: None, lambda: False)
        weights.append(list_checkpoints(RunFolder.of(config).checkpoints)[-1].weights())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-6)
        assert value.abs().max() > 0


@pytest.mark.parametrize("kind", ["c-cca", "random", "c-dcca", "tnn-c-cca"])
def test_student_without_scores_of_classes_takes_no_step_distillation(write_retrieval_config, kind: str) -> None:
    config = load_config(write_retrieval_config(student=STUDENTS[kind]))
    with pytest.raises(UserError, match=r"Set objective\.kind: none"):
        RetrievalTask(config, Sources.open(config))


@pytest.mark.parametrize("kind", ["dscmr", "cctl", "instance-loss", "dclma", "vae-cca"])
def test_student_with_scores_of_classes_takes_step_distillation(write_retrieval_config, kind: str) -> None:
    config = load_config(write_retrieval_config(student=STUDENTS[kind]))
    task = RetrievalTask(config, Sources.open(config))
    task.check(torch.device("cpu"))
    assert {"video_to_audio", "video_to_visual"} <= {term.name for term in task.description.terms}


def test_more_components_than_the_vectors_have_values_are_a_user_error(write_retrieval_config) -> None:
    config = load_config(write_retrieval_config(student="{kind: c-cca, components: 500}", objective="none"))
    with pytest.raises(UserError, match=r"student\.components is 500, but the vectors that are projected have"):
        build_retrieval_student(config.student, 128, 256, 10)
    with pytest.raises(UserError, match="one class"):
        build_retrieval_student(config.student, 128, 256, 1)

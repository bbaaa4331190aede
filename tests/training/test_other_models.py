"""Runs and exports whose weights are those of another model: one message wherever they are loaded."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

from vadv_dist.config import load_config
from vadv_dist.errors import UserError
from vadv_dist.inference.manifest import MANIFEST, WEIGHTS
from vadv_dist.inference.retrieve import PairStudent
from vadv_dist.launch.driver import train
from vadv_dist.launch.worker import train_locally
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage import file_entries, read_json, write_json
from vadv_dist.training.evaluate import evaluate_run

CHANGED = (
    r"step-\d+ holds the weights of another model: student\.encoders\.audio\.layers\.0\.weight has shape \[16, 6\], "
    r"but \[8, 6\] in the model that its configuration describes \(11 more tensors differ\)\. It was written by "
    r"another version of vadv, or its configuration was changed\. Use that version or restore the configuration; "
    r"otherwise train again under another name"
)


@pytest.fixture(scope="module")
def config_path(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "run.yaml"
    path.write_text(
        f"""
run: {{name: run, storage: {path.parent / "runs"}}}
task: retrieval
data: {{sources: [{{uri: {events}}}], batch_size: 16, missing: mask}}
student: {{kind: eics, hidden: 16}}
objective: none
trainer: {{epochs: 1, use_gpu: false}}
"""
    )
    return path


@pytest.fixture(scope="module")
def complete(config_path: Path) -> Path:
    """A complete run."""
    config = load_config(config_path)
    train(config, Console(quiet=True, stderr=True))
    return Path(RunFolder.of(config).root)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_evaluating_a_run_with_another_configuration_names_the_tensor(complete: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(complete, tmp_path / "run")
    rewrite(folder / "config.yaml", "hidden: 16", "hidden: 8")
    with pytest.raises(UserError, match=CHANGED):
        evaluate_run(folder, "valid")


def test_resuming_a_run_with_another_configuration_names_the_tensor(config_path: Path) -> None:
    config, other = (load_config(config_path, ["--run.name=cut", f"--student.hidden={width}"]) for width in (16, 8))
    folder = RunFolder.of(config)
    folder.claim(config)
    asked = iter([False] * 3)
    train_locally(config, lambda line: None, lambda: next(asked, True))
    rewrite(Path(folder.root) / "config.yaml", "hidden: 16", "hidden: 8")
    folder.claim(other)
    with pytest.raises(UserError, match=CHANGED.partition(r" \(11")[0]):
        train_locally(other, lambda line: None, lambda: False)


def test_a_range_of_a_larger_tensor_is_not_read_as_the_whole(complete: Path) -> None:
    """What ranks of ZeRO do: each reads its range, which a larger tensor has, too."""
    checkpoint = last_checkpoint(complete / "checkpoints")
    assert checkpoint is not None
    name = "student.encoders.audio.layers.0.bias"
    with checkpoint.read_weights(shapes={name: (8,)}) as weights, pytest.raises(UserError, match=r"\[16\], but \[8\]"):
        weights.read(name, 0, 8)
    with checkpoint.read_weights(shapes={name: (16,)}) as weights:
        assert len(weights.read(name, 0, 8)) == 8
        with pytest.raises(UserError, match=r"it lacks student\.other, which the model that its configuration"):
            weights.read("student.other", 0, 8)


def test_an_export_whose_weights_are_another_models_is_refused(complete: Path, tmp_path: Path) -> None:
    student = shutil.copytree(complete / "student", tmp_path / "student")
    weights = {name: tensor[:4].contiguous() for name, tensor in load_file(student / WEIGHTS).items()}
    save_file(weights, student / WEIGHTS)
    document = read_json(student / MANIFEST)
    document["files"] = {name: entry for name, entry in file_entries(student).items() if name in document["files"]}
    write_json(student / MANIFEST, document)
    with pytest.raises(UserError, match=r"are not those of the model that its config\.json describes"):
        PairStudent.load(student)

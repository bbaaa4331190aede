"""Listing, reading, changing and pruning of complete checkpoints."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from vadv_dist.errors import MachineError, UserError
from vadv_dist.formats.tensor_parts import TensorPart
from vadv_dist.runs.checkpoint import (
    Checkpoint,
    checkpoint_at,
    last_checkpoint,
    list_checkpoints,
    prune,
    remove_damaged,
)
from vadv_dist.runs.checkpoint_writer import CheckpointWriter

WEIGHTS = {"a.weight": torch.randn(3, 4), "b": torch.randn(5), "count": torch.tensor(3)}
MOMENTS = {f"{moment}/{name}": value * 2 for name, value in WEIGHTS.items() for moment in ("exp_avg", "exp_avg_sq")}


def whole(tensors: dict[str, torch.Tensor]) -> list[TensorPart]:
    return [TensorPart.whole(name, value) for name, value in tensors.items()]


def save(folder: Path, *steps: int, weights_only: bool = False) -> Checkpoint:
    """Save checkpoints of which none is removed."""
    for step in steps:
        writer = CheckpointWriter(folder, 0, 1, f"test-{step}")
        state = None if weights_only else {"step": step}
        moments = [] if weights_only else whole(MOMENTS)
        earlier = [checkpoint.step for checkpoint in list_checkpoints(folder)]
        writer.copy(step, best=earlier, weights=whole(WEIGHTS), moments=moments, state=state)
        writer.start()
        writer.wait()
    return checkpoint_at(folder, steps[-1])


def test_checkpoint_round_trips(tmp_path: Path) -> None:
    save(tmp_path, 7)
    (found,) = list_checkpoints(tmp_path)
    assert found.path.name == "step-7"
    assert found.is_resumable
    assert found.state() == {"step": 7}
    assert found.weights().keys() == WEIGHTS.keys()
    assert all(torch.equal(found.weights()[name], value) for name, value in WEIGHTS.items())
    assert all(torch.equal(found.moments()[name], value) for name, value in MOMENTS.items())


def test_checkpoint_files_respect_the_umask(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    modes = {path.stat().st_mode for path in save(tmp_path, 7).path.iterdir()}
    assert modes == {(tmp_path / "any").stat().st_mode}


@pytest.mark.parametrize("name", ["weights-0.safetensors", "moments-0.safetensors", "state-*.json"])
def test_modified_file_is_not_loaded(tmp_path: Path, name: str) -> None:
    saved = save(tmp_path, 7)
    [path] = saved.path.glob(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    read = {"weights": saved.weights, "moments": saved.moments, "state": saved.state}
    with pytest.raises(MachineError, match=f"{path.name} does not match manifest.json"):
        read[name.partition("-")[0]]()


def test_missing_file_is_a_machine_error(tmp_path: Path) -> None:
    saved = save(tmp_path, 7)
    (saved.path / "weights-0.safetensors").unlink()
    with pytest.raises(MachineError, match=r"weights-0\.safetensors"):
        saved.weights()


def test_checkpoint_without_a_manifest_is_ignored(tmp_path: Path) -> None:
    save(tmp_path, 7)
    (save(tmp_path, 9).path / "manifest.json").unlink()
    assert [c.step for c in list_checkpoints(tmp_path)] == [7]


def test_checkpoint_of_another_format_is_refused_with_advice(tmp_path: Path) -> None:
    saved = save(tmp_path, 7)
    (saved.path / "manifest.json").write_text(json.dumps({"step": 7, "files": {}}))  # as before formats had numbers
    for read in (list_checkpoints, last_checkpoint, lambda folder: checkpoint_at(folder, 7)):
        with pytest.raises(
            UserError, match=r"another version of vadv \(checkpoint format 1, expected 2\).*--run\.name"
        ):
            read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        '{"format": 2, "fil',
        '{"format": 2}',
        '{"format": 2, "files": {"a": {"bytes": 1}}}',
        '{"format": 18, "files": {}}',
    ],
)
def test_damaged_manifest_is_refused_unless_there_is_another_checkpoint(tmp_path: Path, content: str) -> None:
    folder, said = tmp_path / "run", []
    (save(folder, 7).path / "manifest.json").write_text(content)
    for read in (last_checkpoint, lambda folder: checkpoint_at(folder, 7)):
        with pytest.raises(UserError, match="step-7"):
            read(folder)
    shutil.copytree(save(tmp_path / "other", 6).path, folder / "step-6")
    last = last_checkpoint(folder)
    assert last is not None
    assert last.step == 6
    remove_damaged(folder, said.append)
    assert [path.name for path in folder.iterdir()] == ["step-6"]
    assert [line for line in said if "step-7/manifest.json is damaged" in line]


def test_the_manifest_states_size_and_hash_of_every_file(tmp_path: Path) -> None:
    saved = save(tmp_path, 7)
    files = json.loads((saved.path / "manifest.json").read_text())["files"]
    assert {path.name for path in saved.path.iterdir()} == {"manifest.json", *files}
    assert len(files) == 3
    for name, entry in files.items():
        assert (saved.path / name).stat().st_size == entry["bytes"]
    saved.verify()


def test_last_checkpoint_is_one_that_training_can_continue_from(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "absent") is None
    save(tmp_path, 7)
    save(tmp_path, 9, weights_only=True)
    last = last_checkpoint(tmp_path)
    assert last is not None
    assert last.step == 7
    assert [c.is_resumable for c in list_checkpoints(tmp_path)] == [True, False]
    assert torch.equal(checkpoint_at(tmp_path, 9).weights()["b"], WEIGHTS["b"])


def test_loop_state_is_replaced_in_place(tmp_path: Path) -> None:
    before = save(tmp_path, 7)
    before.with_state({"step": 7, "stopped": "epochs"})
    after = checkpoint_at(tmp_path, 7)
    assert after.state() == {"step": 7, "stopped": "epochs"}
    after.verify()
    assert len(list(after.path.glob("state-*.json"))) == 1
    assert {path.name for path in after.path.iterdir()} == {"manifest.json", *after.files}


def test_moments_are_dropped_from_a_checkpoint_that_is_kept_for_its_weights(tmp_path: Path) -> None:
    save(tmp_path, 7).without_moments()
    kept = checkpoint_at(tmp_path, 7)
    assert [path.name for path in kept.path.iterdir() if path.name != "manifest.json"] == ["weights-0.safetensors"]
    assert not kept.is_resumable
    kept.verify()
    assert torch.equal(kept.weights()["b"], WEIGHTS["b"])


def test_pruning_keeps_given_steps_and_removes_partial_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 3, 7, 9)
    (tmp_path / ".step-11.partial-123").mkdir()
    (tmp_path / "step-12").mkdir()
    prune(tmp_path, {3, 9}, resumable={9})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-3", "step-9"]
    assert [c.is_resumable for c in list_checkpoints(tmp_path)] == [False, True]


def test_pruning_leaves_what_other_ranks_may_be_writing(tmp_path: Path) -> None:
    save(tmp_path, 9)
    for name in (".step-8.partial-a", ".step-9.partial-a", "step-8", ".step-10.partial-a", "step-10"):
        (tmp_path / name).mkdir()
    prune(tmp_path, {9}, resumable={9}, up_to=9)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".step-10.partial-a", "step-10", "step-9"]

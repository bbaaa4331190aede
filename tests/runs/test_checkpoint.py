import errno
import json
from pathlib import Path

import pytest
import torch

from vadv_dist.errors import MachineError
from vadv_dist.runs import checkpoint as module
from vadv_dist.runs.checkpoint import checkpoint_at, list_checkpoints, prune, save_checkpoint

WEIGHTS = {"a.weight": torch.randn(3, 4), "b": torch.randn(5)}
MOMENTS = {f"{moment}/{name}": value * 2 for name, value in WEIGHTS.items() for moment in ("exp_avg", "exp_avg_sq")}


def save(folder: Path, step: int):
    return save_checkpoint(folder, step, weights=WEIGHTS, moments=MOMENTS, state={"step": step})


def test_checkpoint_round_trips(tmp_path: Path) -> None:
    save(tmp_path, 7)
    (found,) = list_checkpoints(tmp_path)
    assert found.path.name == "step-7"
    assert found.state() == {"step": 7}
    assert all(torch.equal(found.weights()[name], value) for name, value in WEIGHTS.items())
    assert all(torch.equal(found.moments()[name], value) for name, value in MOMENTS.items())


def test_checkpoint_files_respect_the_umask(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    modes = {path.stat().st_mode for path in save(tmp_path, 7).path.iterdir()}
    assert modes == {(tmp_path / "any").stat().st_mode}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_modified_file_is_not_loaded(tmp_path: Path, name: str) -> None:
    saved = save(tmp_path, 7)
    data = bytearray((saved.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (saved.path / name).write_bytes(bytes(data))
    read = {"model.safetensors": saved.weights, "optimizer.safetensors": saved.moments, "state.json": saved.state}
    with pytest.raises(MachineError, match=f"{name} does not match manifest.json"):
        read[name]()


def test_missing_file_is_a_machine_error(tmp_path: Path) -> None:
    saved = save(tmp_path, 7)
    (saved.path / "model.safetensors").unlink()
    with pytest.raises(MachineError, match=r"model\.safetensors"):
        saved.weights()


def test_checkpoint_without_a_manifest_is_ignored(tmp_path: Path) -> None:
    save(tmp_path, 7)
    (save(tmp_path, 9).path / "manifest.json").unlink()
    assert [c.step for c in list_checkpoints(tmp_path)] == [7]


def test_the_manifest_states_size_and_hash_of_every_file(tmp_path: Path) -> None:
    saved = save(tmp_path, 7)
    files = json.loads((saved.path / "manifest.json").read_text())["files"]
    assert set(files) == {"model.safetensors", "optimizer.safetensors", "state.json"}
    for name, entry in files.items():
        assert (saved.path / name).stat().st_size == entry["bytes"]


def test_pruning_keeps_given_steps_and_removes_partial_checkpoints(tmp_path: Path) -> None:
    for step in (3, 7, 9):
        save(tmp_path, step)
    (tmp_path / ".step-11.partial-123").mkdir()
    (tmp_path / "step-12").mkdir()
    prune(tmp_path, {3, 9})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-3", "step-9"]
    assert checkpoint_at(tmp_path, 9).step == 9


def test_full_disk_keeps_earlier_checkpoints_and_leaves_no_partial_files(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, 7)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(MachineError, match=r"No space left.*earlier checkpoints are complete"):
        save(tmp_path, 9)
    assert [p.name for p in tmp_path.iterdir()] == ["step-7"]

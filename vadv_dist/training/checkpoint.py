"""Checkpoints: whole or not at all, verified before anything in them is loaded, the same for every engine.

A checkpoint holds full fp32 weights and AdamW moments by parameter name, so that a run can go on with another ZeRO
stage, another number of workers or another engine. Only safetensors and JSON are read: nothing in it can run code.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vadv_dist.errors import MachineError, UserError
from vadv_dist.storage import atomic_directory, file_entries, read_json, sha256_file, write_json

WEIGHTS, OPTIMIZER, STATE, MANIFEST = "model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint."""

    path: Path
    step: int

    def verify(self, *names: str) -> None:
        """Compare files with the manifest's SHA-256 (all of them where none is named).

        Raises:
            MachineError: a file is missing or was changed.
        """
        entries = read_json(self.path / MANIFEST)["files"]
        for name in names or entries:
            file = self.path / name
            if name not in entries or not file.is_file() or sha256_file(file) != entries[name]["sha256"]:
                raise MachineError(
                    f"{file} is not what {MANIFEST} declares (damaged or changed), so it is not loaded. "
                    f"Remove {self.path} to go on from the checkpoint before it."
                )

    def weights(self) -> dict[str, Tensor]:
        """Verify and read the weights by parameter name."""
        from safetensors.torch import load_file

        self.verify(WEIGHTS)
        return load_file(self.path / WEIGHTS)

    def moments(self) -> dict[str, Tensor]:
        """Verify and read AdamW's moments, keyed `exp_avg/<parameter>` and `exp_avg_sq/<parameter>`."""
        from safetensors.torch import load_file

        self.verify(OPTIMIZER)
        return load_file(self.path / OPTIMIZER)

    def state(self) -> dict[str, Any]:
        """Verify and read the position and the records of the training loop."""
        self.verify(STATE)
        return read_json(self.path / STATE)


def save_checkpoint(
    folder: Path, step: int, *, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Checkpoint:
    """Write `step-<n>` below a folder, its manifest last.

    Raises:
        MachineError: the disk is full; earlier checkpoints are as they were.
    """
    from safetensors.torch import save_file

    path = folder / f"step-{step}"
    if path.exists():
        shutil.rmtree(path)
    with atomic_directory(path, safe="earlier checkpoints are complete.") as partial:
        try:
            save_file(dict(weights), partial / WEIGHTS)
            save_file(dict(moments), partial / OPTIMIZER)
        except Exception as error:
            # safetensors reports a failed write as its own exception, whose text carries the system's message.
            if "space" in str(error).lower() or "os error 28" in str(error).lower():
                raise OSError(28, "No space left on device") from error
            raise
        write_json(partial / STATE, state)
        write_json(partial / MANIFEST, {"step": step, "files": file_entries(partial)})
    return Checkpoint(path, step)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return complete checkpoints, oldest first; a partial one has no manifest and is not seen."""
    found = []
    for path in folder.glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdigit() and (path / MANIFEST).is_file():
            found.append(Checkpoint(path, int(number)))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def checkpoint_at(folder: Path, step: int) -> Checkpoint:
    """Return the checkpoint of a step.

    Raises:
        UserError: there is none.
    """
    for checkpoint in list_checkpoints(folder):
        if checkpoint.step == step:
            return checkpoint
    raise UserError(f"{folder} has no checkpoint of step {step}. Train the run again, or restore the folder.")


def prune(folder: Path, keep: set[int]) -> None:
    """Remove all checkpoints but some, and what killed attempts left half-written."""
    for checkpoint in list_checkpoints(folder):
        if checkpoint.step not in keep:
            # The manifest goes first: a removal that is cut off leaves no checkpoint that looks complete.
            (checkpoint.path / MANIFEST).unlink()
            shutil.rmtree(checkpoint.path)
    for left in folder.glob(".step-*.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    for path in folder.glob("step-*"):
        if not (path / MANIFEST).is_file():
            shutil.rmtree(path, ignore_errors=True)

"""Checkpoints: written atomically, verified before loading, and independent of the engine.

A checkpoint contains full fp32 weights and AdamW moments by parameter name, so that a run can be resumed with another
ZeRO stage, number of workers or engine. It is only safetensors and JSON, so loading one cannot execute code.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.errors import MachineError, UserError
from vadv_dist.formats.tensors import save_tensors
from vadv_dist.storage import (
    Location,
    atomic_directory,
    file_entries,
    local_copy,
    read_json,
    remove_tree,
    sha256_file,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, OPTIMIZER, RANKS = "model.safetensors", "optimizer.safetensors", "ranks.safetensors"
STATE, MANIFEST = "state.json", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint."""

    path: Location
    step: int

    def verify(self, *names: str) -> None:
        """Compare files, by default all, with the manifest's SHA-256.

        Raises:
            MachineError: a file is missing or was modified.
        """
        entries = read_json(self.path / MANIFEST)["files"]
        for name in names or entries:
            with self._verified(name, entries):
                pass

    @contextmanager
    def _verified(self, name: str, entries: Mapping[str, Any] | None = None) -> Iterator[Path]:
        """Yield a local path of a file that matches the manifest."""
        entries = read_json(self.path / MANIFEST)["files"] if entries is None else entries
        try:
            with local_copy(self.path / name) as file:
                if name not in entries or sha256_file(file) != entries[name]["sha256"]:
                    raise FileNotFoundError
                yield file
        except FileNotFoundError:
            raise MachineError(
                f"{self.path / name} does not match {MANIFEST} (damaged or modified), so it is not loaded. Remove "
                f"{self.path} to resume from the previous checkpoint."
            ) from None

    def weights(self) -> dict[str, "Tensor"]:
        """Verify and read the weights by parameter name."""
        from safetensors.torch import load_file

        with self._verified(WEIGHTS) as file:
            return load_file(file)

    def moments(self) -> dict[str, "Tensor"]:
        """Verify and read AdamW's moments, keyed `exp_avg/<parameter>` and `exp_avg_sq/<parameter>`."""
        from safetensors.torch import load_file

        with self._verified(OPTIMIZER) as file:
            return load_file(file)

    def ranks(self) -> list[dict[str, "Tensor"]]:
        """Verify and read the ranks' own states, in the order of ranks; empty if there are none."""
        from safetensors.torch import load_file

        if not (self.path / RANKS).is_file():
            return []
        with self._verified(RANKS) as file:
            found = load_file(file)
        parts: dict[int, dict[str, Tensor]] = {}
        for key, value in found.items():
            rank, _, name = key.partition("/")
            parts.setdefault(int(rank), {})[name] = value
        return [parts[rank] for rank in sorted(parts)]

    def state(self) -> dict[str, Any]:
        """Verify and read the state of the training loop."""
        with self._verified(STATE) as file:
            return read_json(file)


def save_checkpoint(
    folder: Location,
    step: int,
    *,
    weights: Mapping[str, "Tensor"],
    moments: Mapping[str, "Tensor"],
    ranks: Sequence[Mapping[str, "Tensor"]] = (),
    state: Mapping[str, Any],
) -> Checkpoint:
    """Write `step-<n>` to a folder, its manifest last.

    Args:
        folder: the run's checkpoints.
        step: number of updates so far.
        weights, moments: full tensors in fp32, by parameter name.
        ranks: the ranks' own states (`objectives/rank_state.py`), in the order of ranks.
        state: state of the training loop.
    Raises:
        MachineError: the disk is full; earlier checkpoints are unaffected.
    """
    path = folder / f"step-{step}"
    if path.exists():
        _remove(path)
    with atomic_directory(path, manifest=MANIFEST, safe="earlier checkpoints are complete.") as upload:
        partial = upload.folder
        save_tensors(weights, partial / WEIGHTS)
        save_tensors(moments, partial / OPTIMIZER)
        own = {f"{rank}/{name}": value for rank, part in enumerate(ranks) for name, value in part.items()}
        if own:
            save_tensors(own, partial / RANKS)
        write_json(partial / STATE, state)
        write_json(partial / MANIFEST, {"step": step, "files": file_entries(partial)})
    return Checkpoint(path, step)


def list_checkpoints(folder: Location) -> list[Checkpoint]:
    """Return complete checkpoints, oldest first; a partial one has no manifest and is ignored."""
    found = []
    for path in folder.glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdigit() and (path / MANIFEST).is_file():
            found.append(Checkpoint(path, int(number)))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def checkpoint_at(folder: Location, step: int) -> Checkpoint:
    """Return the checkpoint of a step.

    Raises:
        UserError: there is none.
    """
    for checkpoint in list_checkpoints(folder):
        if checkpoint.step == step:
            return checkpoint
    raise UserError(f"{folder} has no checkpoint of step {step}. Train the run again, or restore the folder.")


def prune(folder: Location, keep: set[int]) -> None:
    """Remove all checkpoints except some, and partial ones left by killed attempts."""
    for checkpoint in list_checkpoints(folder):
        if checkpoint.step not in keep:
            _remove(checkpoint.path)
    for left in (*folder.glob(".step-*.partial-*"), *folder.glob("step-*")):
        if not (left / MANIFEST).is_file() or left.name.startswith("."):
            with contextlib.suppress(OSError):
                remove_tree(left)


def _remove(path: Location) -> None:
    # The manifest first, so that an interrupted removal leaves no checkpoint that looks complete.
    (path / MANIFEST).unlink(missing_ok=True)
    remove_tree(path)

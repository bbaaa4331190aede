"""Checkpoints: folders that are complete or ignored, verified before use, and independent of the engine.

`step-<n>/` holds the state after `n` updates:

    manifest.json              written last: format, and size and SHA-256 of every other file
    weights-<rank>.safetensors the parts of the weights that each rank held, by parameter name
    moments-<rank>.safetensors likewise AdamW's moments, as `<moment>/<parameter>`
    own-<rank>.safetensors     state of its own that a rank has (`objectives/rank_state.py`), if any
    state-<hash>.json          state of the training loop

In an object store, names also have a token, such as `weights-<rank>.<token>.safetensors`: a process of a killed attempt
that is still writing does not replace files of the attempt that followed. Readers go by the manifest's names.

Only the last checkpoints (`trainer.keep_last`) have everything. The best ones are kept for their weights, so they have
no moments, no ranks' own states and no loop state: they can be evaluated and exported, but not resumed.

Values are fp32 (buffers keep their type) and belong to the tensor, not to the rank: a run can be resumed with another
number of ranks, ZeRO stage or engine, and each rank then reads the ranges that it needs. A file is safetensors or JSON,
so that loading one cannot execute code; a tensor that a file holds in full has its own shape there, and a range of one
is flat, with its place in the file's metadata (`tensor_files.py`).
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.errors import MachineError, UserError
from vadv_dist.storage import (
    Location,
    file_size,
    find_json,
    local_copy,
    on_disk,
    read_json,
    remove_tree,
    sha256_file,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

    from vadv_dist.runs.tensor_files import SavedTensors

MANIFEST = "manifest.json"
WEIGHTS, MOMENTS, OWN, STATE = "weights", "moments", "own", "state"
# Of a file in which a rank lists what it has written; none is left in a complete checkpoint.
PART = "rank"
# Checkpoints of other formats are refused. 1 was one file of weights and one of moments, without this number.
FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint.

    Attributes:
        path: its folder.
        step: number of updates so far.
        files: size and SHA-256 of its files, by name.
    """

    path: Location
    step: int
    files: Mapping[str, Mapping[str, Any]]

    @property
    def is_resumable(self) -> bool:
        """Whether training can continue from it; otherwise it has weights alone."""
        return bool(self._names(STATE))

    def fault(self) -> Location | None:
        """A file that is missing or differs from the manifest: in its size or, on a disk, in its SHA-256."""
        for name, entry in self.files.items():
            file = self.path / name
            try:
                if file_size(file) != entry["bytes"]:
                    return file
                if on_disk(file) is not None and sha256_file(file) != entry["sha256"]:
                    return file
            except FileNotFoundError:
                return file
        return None

    def verify(self) -> None:
        """Compare all files with the manifest's SHA-256.

        Raises:
            MachineError: a file is missing or was modified.
        """
        for name in self.files:
            with self._verified(name):
                pass

    @contextmanager
    def _verified(self, name: str) -> Iterator[Path]:
        """Yield a local path of a file that matches the manifest."""
        try:
            with local_copy(self.path / name) as file:
                if sha256_file(file) != self.files[name]["sha256"]:
                    raise FileNotFoundError
                yield file
        except FileNotFoundError:
            raise MachineError(
                f"{self.path / name} does not match {MANIFEST} (damaged or modified), so it is not loaded. "
                "Restore the file, or start another run (--run.name=…)."
            ) from None

    @contextmanager
    def read_weights(
        self, rank: int = 0, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> Iterator["SavedTensors"]:
        """Yield a reader of the weights. It opens and verifies a file when it needs it, that of `rank` first.

        Args:
            rank: this rank.
            shapes: shapes of the model's tensors by name, as far as this rank holds them; others are refused.
        """
        from vadv_dist.runs.tensor_files import SavedTensors  # loads torch

        names = self._names(WEIGHTS, first=rank)
        with SavedTensors(names, self._verified, shapes=shapes, where=self.path) as tensors:
            yield tensors

    @contextmanager
    def read_moments(self, rank: int = 0) -> Iterator["SavedTensors"]:
        """Yield a reader of AdamW's moments, keyed `exp_avg/<parameter>` and `exp_avg_sq/<parameter>`."""
        from vadv_dist.runs.tensor_files import SavedTensors  # loads torch

        with SavedTensors(self._names(MOMENTS, first=rank), self._verified) as tensors:
            yield tensors

    def weights(self) -> dict[str, "Tensor"]:
        """Verify and read all weights by parameter name."""
        with self.read_weights() as tensors:
            return tensors.whole()

    def moments(self) -> dict[str, "Tensor"]:
        """Verify and read all moments."""
        with self.read_moments() as tensors:
            return tensors.whole()

    def ranks(self) -> list[dict[str, "Tensor"]]:
        """Verify and read the ranks' own states, in the order of ranks; empty if there are none."""
        from vadv_dist.runs.tensor_files import SavedTensors  # loads torch

        found = []
        for name in self._names(OWN):
            with SavedTensors([name], self._verified) as tensors:
                found.append(tensors.whole())
        return found

    def state(self) -> dict[str, Any]:
        """Verify and read the state of the training loop."""
        [name] = self._names(STATE)
        with self._verified(name) as file:
            return read_json(file)

    def with_state(self, state: Mapping[str, Any]) -> "Checkpoint":
        """Replace the state of the training loop; a crash leaves the earlier one."""
        name = state_name(state)
        write_json(self.path / name, state)
        kept = {file: entry for file, entry in self.files.items() if file not in self._names(STATE)}
        return self._with_files({**kept, name: file_entry(self.path / name)})

    def without_moments(self) -> "Checkpoint":
        """Keep the weights only."""
        return self._with_files({name: self.files[name] for name in self._names(WEIGHTS)})

    def _with_files(self, files: Mapping[str, Mapping[str, Any]]) -> "Checkpoint":
        # The manifest first: it never lists a file that is gone.
        write_json(self.path / MANIFEST, manifest(self.step, files))
        for name in self.files.keys() - files.keys():
            (self.path / name).unlink(missing_ok=True)
        return Checkpoint(self.path, self.step, files)

    def remove_unlisted(self) -> None:
        """Remove files that are not in the manifest; nobody may be writing there."""
        kinds = tuple(f"{kind}-" for kind in (WEIGHTS, MOMENTS, OWN, STATE, PART))
        for path in [*self.path.iterdir()]:
            if path.name.startswith(kinds) and path.name not in self.files:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it, the manifest first, so that an interrupted removal leaves nothing that looks complete."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        remove_tree(self.path)

    def _names(self, kind: str, first: int = 0) -> list[str]:
        """Files of a kind in the order of ranks, beginning with that of a rank if it has one."""
        names = [name for name in self.files if name.startswith(f"{kind}-")]
        if kind == STATE:
            return names
        rank = {name: int(name.removeprefix(f"{kind}-").partition(".")[0]) for name in names}
        return sorted(names, key=lambda name: (rank[name] != first, rank[name]))


def manifest(step: int, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a checkpoint's manifest."""
    return {"format": FORMAT, "step": step, "files": files}


def file_entry(path: Location) -> dict[str, Any]:
    """Size and SHA-256 of a small file."""
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def state_name(state: Mapping[str, Any]) -> str:
    """File name of a loop state: another state has another name, so that one can replace the other."""
    return f"{STATE}-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}.json"


def list_checkpoints(folder: Location) -> list[Checkpoint]:
    """Return all complete checkpoints, oldest first.

    One without a manifest is incomplete and is ignored, and so is one whose manifest is damaged or of another format,
    as long as there is another to continue from.

    Raises:
        UserError: the only one to continue from may be one whose manifest is damaged or of another format.
    """
    found, damaged = _find(folder)
    if damaged and not any(checkpoint.is_resumable for checkpoint in found):
        raise next(iter(damaged.values()))
    return found


def _find(folder: Location) -> tuple[list[Checkpoint], dict[Location, UserError]]:
    """Complete checkpoints, oldest first, and folders whose manifest cannot be used, with the reason."""
    found, damaged = [], {}
    for path in folder.glob("step-*"):
        number = path.name.removeprefix("step-")
        if not number.isdigit():
            continue
        try:
            checkpoint = _open(path, int(number))
        except UserError as error:
            damaged[path] = error
            continue
        if checkpoint is not None:
            found.append(checkpoint)
    return sorted(found, key=lambda checkpoint: checkpoint.step), damaged


def last_checkpoint(folder: Location) -> Checkpoint | None:
    """Return the last checkpoint that training can continue from; None if there is none."""
    resumable = [checkpoint for checkpoint in list_checkpoints(folder) if checkpoint.is_resumable]
    return resumable[-1] if resumable else None


def remove_damaged(folder: Location, say: Callable[[str], None]) -> None:
    """Remove the last checkpoint if it is damaged, as long as there is one before it to continue from.

    Checkpoints whose manifest cannot be used are removed too.

    On a disk all files are hashed. In an object store, which keeps hashes of its own, their sizes are compared.

    Args:
        folder: the run's checkpoints.
        say: called with a line for each one that is removed.
    """
    resumable = [checkpoint for checkpoint in list_checkpoints(folder) if checkpoint.is_resumable]
    for path in _find(folder)[1] if resumable else ():
        say(f"warning: {path / MANIFEST} is damaged; this checkpoint is left out and removed")
        (path / MANIFEST).unlink(missing_ok=True)
        remove_tree(path)
    while len(resumable) > 1:
        fault = resumable[-1].fault()
        if fault is None:
            return
        damaged = resumable.pop()
        say(
            f"warning: {fault} does not match {MANIFEST} (damaged or modified); going back to step {resumable[-1].step}"
        )
        damaged.remove()


def checkpoint_at(folder: Location, step: int) -> Checkpoint:
    """Return the checkpoint of a step, which may have weights only.

    Raises:
        UserError: there is none, or it has another format.
    """
    found = _open(folder / f"step-{step}", step)
    if found is None:
        raise UserError(f"{folder} has no checkpoint of step {step}. Train the run again, or restore the folder.")
    return found


def _open(path: Location, step: int) -> Checkpoint | None:
    content = find_json(path / MANIFEST)
    if content is None:
        return None
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path} was written by another version of vadv (checkpoint format {content.get('format', 1)}, expected "
            f"{FORMAT}). Use that version, or start another run (--run.name=…)."
        )
    files = content.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(each, dict) and {"bytes", "sha256"} <= each.keys() for each in files.values()
    ):
        raise UserError(
            f"{path / MANIFEST} does not list files with their sizes and hashes (damaged or modified). Restore the "
            "file, or start another run (--run.name=…)."
        )
    return Checkpoint(path, step, files)


def prune(folder: Location, keep: set[int], *, resumable: Collection[int] | None, up_to: int | None = None) -> None:
    """Remove what is no longer needed.

    Args:
        folder: the run's checkpoints.
        keep: steps of checkpoints to keep.
        resumable: of these, the ones that keep their moments; None leaves the moments of all.
        up_to: incomplete checkpoints of later steps are left, because a rank may be writing them; None removes all,
            and from complete ones what killed attempts left in them.
    """
    for checkpoint in list_checkpoints(folder):
        if checkpoint.step not in keep:
            checkpoint.remove()
            continue
        if checkpoint.is_resumable and resumable is not None and checkpoint.step not in resumable:
            checkpoint = checkpoint.without_moments()
        if up_to is None:
            checkpoint.remove_unlisted()
    for left in (*folder.glob(".step-*.partial-*"), *folder.glob("step-*")):
        number = left.name.lstrip(".").removeprefix("step-").partition(".")[0]
        is_old = up_to is None or (number.isdigit() and int(number) <= up_to)
        if is_old and (left.name.startswith(".") or not (left / MANIFEST).is_file()):
            with contextlib.suppress(OSError):
                remove_tree(left)

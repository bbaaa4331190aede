"""Checkpoints are written by a thread, while training continues.

Training waits only while each rank copies its parts of the tensors to host memory. Then, on every rank, a thread
writes them and hashes them on the way. Ranks other than 0 write `rank-<k>.json` last, with the sizes and hashes of
their files. Rank 0 waits until it has found one of each rank, writes the manifest that makes the checkpoint complete,
and removes what is no longer needed. Ranks meet only in the storage, because a collective operation in a thread would
get mixed up with those of training.

One checkpoint is written at a time: the next one waits for it. A crash before the manifest leaves the one before. A
fault of the thread is raised in the loop.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.errors import StorageError
from vadv_dist.formats.tensor_parts import TensorPart
from vadv_dist.runs.checkpoint import (
    MANIFEST,
    MOMENTS,
    OWN,
    PART,
    WEIGHTS,
    checkpoint_at,
    file_entry,
    manifest,
    prune,
    state_name,
)
from vadv_dist.runs.tensor_files import FileImage, HostBuffer
from vadv_dist.storage import JointDirectory, Location, find_json, json_text

if TYPE_CHECKING:
    from torch import Tensor

_SAFE = "earlier checkpoints are complete."
# After each piece its pages are marked as not needed again. The system then writes them at once and frees them:
# a checkpoint neither fills the page cache nor waits for the disk at its end.
_PIECE_BYTES = 64 << 20
# How often rank 0 looks for the other ranks' parts, and how long after its own it waits for them. Ranks write equal
# amounts, and S3 and NFS show a new file after at most a minute.
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.02, 1.0
_PARTS_WAIT_S = 600.0
# An upload to an object store cannot be interrupted.
_GIVING_UP_S = 5.0


class _GivenUpError(Exception):
    """Ends the writing of a checkpoint that is not needed any more."""


@dataclass(frozen=True)
class _Job:
    """A checkpoint to be written.

    Attributes:
        step: its number of updates.
        best: steps of the best checkpoints so far.
        state: state of the training loop; None for weights alone.
        images: this rank's files.
        directory: where all ranks write.
        replaces: where they wrote the weights of this step alone, complete or given up.
        given_up: set if it is not needed any more.
    """

    step: int
    best: frozenset[int]
    state: Mapping[str, Any] | None
    images: Mapping[str, FileImage]
    directory: JointDirectory
    replaces: JointDirectory | None
    given_up: threading.Event = field(default_factory=threading.Event)


class CheckpointWriter:
    """Writes one rank's parts of a run's checkpoints; all ranks make the same calls.

    Args:
        folder: the run's checkpoints.
        rank, world_size: this rank and the number of ranks.
        attempt: the same for all ranks, and for no earlier attempt of the run.
        parts_wait_s: seconds that rank 0 waits for the other ranks' parts.
        before_publishing: called on rank 0 before a checkpoint becomes complete or gets another state.
        keep_last: number of checkpoints that training can continue from to keep.

    Attributes:
        written_s: seconds for which the thread wrote the last checkpoint; 0 while it writes, and if that failed.
    """

    def __init__(
        self,
        folder: Location,
        rank: int,
        world_size: int,
        attempt: str,
        parts_wait_s: float = _PARTS_WAIT_S,
        before_publishing: Callable[[], None] = lambda: None,
        keep_last: int = 1,
    ) -> None:
        self._folder, self._rank, self._world_size, self._attempt = folder, rank, world_size, attempt
        self._buffer = HostBuffer()
        self._number = 0
        self._job: _Job | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._parts_wait_s, self._before_publishing = parts_wait_s, before_publishing
        self._keep_last = keep_last
        self.written_s = self._started_s = 0.0
        self._leave_at_s = float("inf")  # by the monotonic clock
        # The last checkpoints that training can continue from, the newest last, each with the steps of those that its
        # state calls the best: what a resumed run needs.
        self._resumable: dict[int, frozenset[int]] = {}

    def begin(self, resumable: Mapping[int, Iterable[int]]) -> None:
        """Remove what killed attempts left; rank 0 calls it before any rank saves.

        Args:
            resumable: steps that the run can continue from, the one that it does continue from last, each with the
                steps of the best checkpoints in its state.
        """
        self._resumable = {step: frozenset(best) for step, best in resumable.items()}
        prune(self._folder, self._keep(), resumable=self._resumable or None)

    def copy(
        self,
        step: int,
        *,
        best: Iterable[int],
        weights: Iterable[TensorPart],
        moments: Iterable[TensorPart] = (),
        own: "Mapping[str, Tensor] | None" = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy a checkpoint to host memory, once the last one is written.

        Args:
            step: number of updates so far.
            best: steps of the best checkpoints, which are kept.
            weights, moments: this rank's parts.
            own: this rank's own state.
            state: state of the training loop; None saves weights alone, which training cannot continue from.
        Raises:
            MachineError: the last checkpoint could not be written.
        """
        best = frozenset(best)
        if self._job is not None and self._job.state is None and (self._job.step not in best or self._job.step == step):
            self._job.given_up.set()
        self.wait()
        replaces = self._job.directory if self._job is not None and self._job.step == step else None
        self._job = None  # its images are views of the buffer, which may have to grow
        files = {WEIGHTS: [*weights], MOMENTS: [*moments]}
        files[OWN] = [TensorPart.whole(name, value) for name, value in (own or {}).items()]
        self._number += 1
        token = f"{self._attempt}-{self._number}"
        directory = JointDirectory(self._folder / f"step-{step}", token, _SAFE)
        names = {kind: directory.own_name(f"{kind}-{self._rank}.safetensors") for kind in files}
        images = self._buffer.copy({names[kind]: parts for kind, parts in files.items() if parts})
        self._job = _Job(step, best, state, images, directory, replaces)

    def start(self) -> None:
        """Begin to write what was copied."""
        self.written_s, self._started_s = 0.0, time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(self._job,), name="vadv-checkpoint", daemon=True)
        self._thread.start()

    def replace_state(self, step: int, best: Iterable[int], state: Mapping[str, Any]) -> None:
        """Replace the loop state of the last checkpoint, whose weights and moments are still the present ones.

        Raises:
            MachineError: the last checkpoint could not be written.
        """
        self.wait()
        if self._rank == 0:
            self._before_publishing()
            checkpoint_at(self._folder, step).with_state(state)
            self._resumable[step] = frozenset(best)
            prune(self._folder, self._keep(), resumable=self._resumable, up_to=step)

    @property
    def writing_s(self) -> float:
        """Seconds for which the thread has been writing a checkpoint; 0 if it is not."""
        is_writing = self._thread is not None and self._thread.is_alive()
        return time.monotonic() - self._started_s if is_writing else 0.0

    def raise_fault(self) -> None:
        """Raise what kept the thread from writing, if anything did; it costs nothing.

        Raises:
            MachineError: the disk is full, or another rank's part is missing.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self, others_s: float | None = None) -> None:
        """Wait until this rank has written the last checkpoint; on rank 0, until it is complete.

        Args:
            others_s: seconds to wait for other ranks, if they may be gone; None is patient.
        Raises:
            MachineError: it could not be written.
        """
        if self._thread is not None:
            if others_s is not None:
                self._leave_at_s = time.monotonic() + others_s
            self._thread.join()
            self._thread = None
        self.raise_fault()

    def give_up(self) -> None:
        """End the writing, unless it takes seconds to end it; the checkpoint before stays."""
        if self._thread is not None and self._job is not None:
            self._job.given_up.set()
            self._thread.join(_GIVING_UP_S)

    def _run(self, job: _Job) -> None:
        began = time.perf_counter()
        try:
            entries = {name: self._write(job, name, image) for name, image in job.images.items()}
            if self._rank == 0:
                self._complete(job, entries)
            else:
                with job.directory.file(_part_name(job, self._rank)) as path:
                    path.write_text(json_text({"files": entries}), encoding="utf-8")
            self.written_s = time.perf_counter() - began
        except BaseException as error:
            if self._world_size == 1:  # otherwise others may still be writing there
                job.directory.discard()
            if not isinstance(error, _GivenUpError):
                self._error = error

    def _write(self, job: _Job, name: str, image: FileImage) -> dict[str, Any]:
        """Write a file; return its size and SHA-256."""
        digest, size = hashlib.sha256(), 0
        with job.directory.file(name) as path, Path(path).open("wb") as file:
            for piece in image.pieces(_PIECE_BYTES):
                if job.given_up.is_set():
                    raise _GivenUpError
                digest.update(piece)
                size += file.write(piece)
                file.flush()
                if hasattr(os, "posix_fadvise"):  # not on macOS
                    os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_DONTNEED)
        return {"bytes": size, "sha256": digest.hexdigest()}

    def _complete(self, job: _Job, entries: dict[str, Any]) -> None:
        """Publish the checkpoint once all ranks have written their parts, and remove what is no longer needed."""
        until_s = time.monotonic() + self._parts_wait_s
        for rank in range(1, self._world_size):
            entries |= self._wait_for_part(job, rank, until_s)
        for rank in range(1, self._world_size):
            (job.directory / _part_name(job, rank)).unlink(missing_ok=True)
        if job.state is not None:
            name = state_name(job.state)
            with job.directory.file(name) as path:
                path.write_text(json_text(job.state), encoding="utf-8")
            entries[name] = file_entry(job.directory / name)
        if job.given_up.is_set():
            raise _GivenUpError
        self._before_publishing()
        job.directory.publish(MANIFEST, manifest(job.step, entries))
        if job.replaces is not None:
            job.replaces.remove_replaced()
        if job.state is not None:
            self._resumable[job.step] = job.best
            for step in [*self._resumable][: -self._keep_last]:
                del self._resumable[step]
        prune(self._folder, self._keep() | job.best | {job.step}, resumable=self._resumable or None, up_to=job.step)

    def _wait_for_part(self, job: _Job, rank: int, until_s: float) -> dict[str, Any]:
        """Return the entries of another rank's files once it has written them."""
        path, pause_s = job.directory / _part_name(job, rank), _SHORTEST_LOOK_S
        while True:
            part = find_json(path)
            if part is not None:
                return dict(part["files"])
            if job.given_up.is_set():
                raise _GivenUpError
            if time.monotonic() > min(until_s, self._leave_at_s):
                raise StorageError(
                    f"Rank {rank} has not written its part of the checkpoint of step {job.step}: {path} is missing. "
                    f"Its disk may be full or may not be the one that rank 0 writes to; {_SAFE} Run the same command "
                    "again to resume."
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_LOOK_S)

    def _keep(self) -> set[int]:
        return {*self._resumable, *chain.from_iterable(self._resumable.values())}


def _part_name(job: _Job, rank: int) -> str:
    return job.directory.own_name(f"{PART}-{rank}.json")

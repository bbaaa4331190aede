"""Keeps a clip that takes its process down (a fault in a decoder, memory that runs out) from stopping the job.

Ray starts a task whose process died again, without end. A task therefore leaves a note of which batch it has begun; one
that finds such a note reads each clip of the batch in a process of its own, and rejects the clip that takes it down.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vadv_dist.errors import VadvError
from vadv_dist.features.stages import ClipBatch, ClipReader, ClipReport, Located, StageSpec

if TYPE_CHECKING:
    from vadv_dist.data.schema import Array

CRASHED = "unreadable: its decoder crashed"
Read = Callable[[StageSpec, int, Located], ClipBatch]


@contextmanager
def begun(run: str, number: int) -> Iterator[int]:
    """Count how often a batch was begun on this machine and not ended, the time that begins now left out.

    Args:
        run: a name that no other run has.
        number: of the batch.
    """
    note = Path(tempfile.gettempdir()) / f"vadv-extract-{run}" / str(number)
    note.parent.mkdir(exist_ok=True)
    with note.open("ab") as file:
        before = file.tell()
        file.write(b".")
    try:
        yield before
    except VadvError:  # which ends the job
        _forget(note)
        raise
    _forget(note)


def _forget(note: Path) -> None:
    note.unlink(missing_ok=True)
    with suppress(OSError):  # while others have notes there
        note.parent.rmdir()


def read_each_apart(spec: StageSpec, number: int, clips: Located, read: "Read | None" = None) -> ClipBatch:
    """Read a batch as `ClipReader.read` does, each clip in a process of its own.

    Args:
        spec: what a `ClipReader` must know.
        number: of the batch.
        clips: each with the location of its file.
        read: reads them; a `ClipReader` unless given.
    """
    parts = []
    for one in clips:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                parts.append(pool.submit(read or _read, spec, number, [one]).result())
            except BrokenProcessPool:
                parts.append(ClipBatch(number, [ClipReport(one[0].clip_id, reason=CRASHED)]))
    reports = [report for part in parts for report in part.reports]
    visual, face = spec.preparations.visual, spec.preparations.face
    return ClipBatch(
        number,
        reports,
        None if visual is None else _joined([part.visual for part in parts]),
        None if face is None else _joined([part.face for part in parts]),
    )


def _read(spec: StageSpec, number: int, clips: Located) -> ClipBatch:
    return ClipReader(spec).read(number, clips)


def _joined(parts: "list[Array | None]") -> "Array":
    some = [part for part in parts if part is not None and len(part)]
    return np.concatenate(some) if some else np.zeros((0, 0, 0, 0, 3), np.uint8)

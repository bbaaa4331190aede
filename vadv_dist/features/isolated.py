"""Protect an extraction from clips that crash their process (a decoder bug, memory exhaustion).

Ray restarts a task whose process died without limit. A task therefore leaves a note of the batch it has started; a task
that finds such a note reads each clip of the batch in a separate process and rejects the clip that crashes it.
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
    """Count how often a batch was started on this machine without being finished, apart from the current attempt.

    Args:
        run: a unique name of the run.
        number: number of the batch.
    """
    note = Path(tempfile.gettempdir()) / f"vadv-extract-{run}" / str(number)
    note.parent.mkdir(exist_ok=True)
    with note.open("ab") as file:
        before = file.tell()
        file.write(b".")
    try:
        yield before
    except VadvError:  # ends the job
        _forget(note)
        raise
    _forget(note)


def _forget(note: Path) -> None:
    note.unlink(missing_ok=True)
    with suppress(OSError):  # others have notes there
        note.parent.rmdir()


def read_each_apart(spec: StageSpec, number: int, clips: Located, read: "Read | None" = None) -> ClipBatch:
    """Read a batch like `ClipReader.read`, each clip in a separate process.

    Args:
        spec: settings of a `ClipReader`.
        number: number of the batch.
        clips: clips with the locations of their files.
        read: the function that reads them; by default a `ClipReader`.
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

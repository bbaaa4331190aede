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

from vadv_dist.errors import VadvError
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.stages import ClipBatch, ClipReader, ClipReport, Located, ReadClip, StageSpec, as_batch

CRASHED = "unreadable: its decoder crashed"


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


def _read_clip(spec: StageSpec, clip: ListedClip, location: str) -> ReadClip:
    return ClipReader(spec).read_clip(clip, location)


def read_each_apart(
    spec: StageSpec, number: int, clips: Located, read: Callable[[StageSpec, ListedClip, str], ReadClip] = _read_clip
) -> ClipBatch:
    """Read a batch like `ClipReader.read`, each clip in a separate process, with the function `read`."""
    done = []
    for clip, location in clips:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                done.append(pool.submit(read, spec, clip, location).result())
            except BrokenProcessPool:
                done.append((ClipReport(clip.clip_id, reason=CRASHED), None, None))
    return as_batch(spec, number, done)

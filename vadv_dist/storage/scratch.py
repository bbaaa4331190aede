"""Folders for copies on this machine, which do not stay if their process is killed.

A folder is locked by the process that made it. The system releases the lock whatever ends the process, so the next
process can tell which folders are left over.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@contextmanager
def locked_folder() -> Iterator[Path]:
    """Yield an empty folder that is removed afterwards; a process's first one also removes those that are left over.

    Where folders cannot be locked, nothing tells which ones are left over, so they stay.
    """
    _remove_abandoned(tempfile.gettempdir())
    while True:
        with contextlib.ExitStack() as held, tempfile.TemporaryDirectory(prefix=_prefix()) as folder:
            try:
                _lock(folder, held, fcntl.LOCK_EX)
            except FileNotFoundError:
                continue
            except OSError:
                break
            if os.path.isdir(folder):  # another process may have found it before it was locked
                yield Path(folder)
                return
    with tempfile.TemporaryDirectory(prefix="vadv-") as folder:
        yield Path(folder)


@cache
def _remove_abandoned(parent: str) -> None:
    for folder in glob.glob(f"{glob.escape(os.path.join(parent, _prefix()))}*"):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            _lock(folder, held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: str, held: contextlib.ExitStack, operation: int) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    held.callback(os.close, descriptor)
    fcntl.flock(descriptor, operation)


def _prefix() -> str:
    # Machines may share a folder for temporary files, but on some file systems not its locks.
    return f"vadv-scratch-{socket.gethostname()}-"

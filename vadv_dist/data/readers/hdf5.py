"""Read untrusted HDF5 files in a separate process (`hdf5_worker`) that a damaged file may hang or crash without harm.

h5py in this process does not serve: of 8,000 files with a few modified bytes, 2 made the HDF5 library hang inside C,
where no Python timeout applies.
Opening a file costs a fork of about ten milliseconds, and the first one also the start of the process.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Self

import numpy as np

from vadv_dist.data.schema import Array
from vadv_dist.errors import MachineError, UserError, similar_file

# For one request.
REQUEST_SECONDS = 60.0
# Maximum size of one request for rows.
PIECE_BYTES = 4 << 20
_AGAIN = "Download the file again, or rewrite it with h5py."


@dataclass(frozen=True)
class ArrayInfo:
    """Shape and kind (`f`, `i`, `u` or `text`) of an array whose rows are all present in the file."""

    shape: tuple[int, ...]
    kind: str
    itemsize: int

    @property
    def rows_per_piece(self) -> int:
        """Number of rows to request at a time."""
        per_row = max(1, self.itemsize) * int(np.prod(self.shape[1:], dtype=np.float64))
        return max(1, PIECE_BYTES // max(1, per_row))


class Hdf5File:
    """One file, opened in a separate process and used as a context manager.

    Args:
        path: the file.
        option: the command-line option for the file, for messages.

    Raises:
        UserError: by every method, if the file is missing, not HDF5 or damaged, or lacks the requested object.
    """

    def __init__(self, path: Path, option: str) -> None:
        if not path.is_file():
            what = "is a folder, expected an HDF5 file" if path.is_dir() else "does not exist"
            raise UserError(f"{path} {what}.{similar_file(path)} Give the file with {option}.")
        self.path = path

    def __enter__(self) -> Self:
        self._connection, self.process_id = _worker().open(self.path.resolve())
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()  # which also ends the process

    def names(self, path: str) -> list[str]:
        """Names in a group."""
        names: list[str] = self._call("names", path)[0]
        return names

    def describe(self, path: str) -> ArrayInfo:
        """Shape and kind of an array."""
        shape, kind, itemsize = self._call("describe", path)[0]
        return ArrayInfo(tuple(shape), kind, itemsize)

    def numbers(self, path: str, start: int = 0, stop: int | None = None) -> Array:
        """Rows of an array of numbers (all if `stop` is None), [R, ...], as float32, float64 or int64."""
        rows, data = self._call("read", path, start, stop)
        return np.frombuffer(data, rows["dtype"]).reshape(rows["shape"])

    def texts(self, path: str) -> list[str]:
        """All strings of an array."""
        rows: list[str] = self._call("read", path, 0, None)[0]
        return rows

    def _call(self, call: str, *arguments: object) -> tuple[Any, bytes]:
        """The result of a call in the file's process, as JSON and bytes."""
        started = time.monotonic()
        try:
            self._connection.send_bytes(json.dumps([call, *arguments]).encode())
            reply, data = json.loads(self._connection.recv_bytes()), self._connection.recv_bytes()
        except (EOFError, OSError):
            what = "crashed the HDF5 library"
            if time.monotonic() - started >= REQUEST_SECONDS:
                what = f"made the HDF5 library hang for more than {REQUEST_SECONDS:g} s"
            raise UserError(f"{self.path} {what}: it is damaged. {_AGAIN}") from None
        if "refused" in reply:
            raise UserError(f"{self.path} {reply['refused']}. {_AGAIN}")
        if "failed" in reply:
            raise UserError(f"{self.path} cannot be read as HDF5 ({reply['failed']}). {_AGAIN}")
        return reply["value"], data


class _Worker:
    """The process that forks a child for each file."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("hdf5_worker.py"))],
                env={
                    **os.environ,
                    "HDF5_PLUGIN_PRELOAD": "::",  # disables plugins, according to HDF5's manual
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                },
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # the C library reports a corrupted heap there
                start_new_session=True,
            )
        atexit.register(self.close)

    def open(self, path: Path) -> tuple[Connection, int]:
        """Open a file; return the connection on which its process replies, and the process id."""
        ours, theirs = Pipe()
        order = json.dumps([str(path), REQUEST_SECONDS]).encode()
        try:
            with self.lock:  # one order at a time, as the socket keeps no boundaries between them
                with theirs:
                    socket.send_fds(self.control, [order], [theirs.fileno()])
                return ours, int(ours.recv_bytes())
        except (EOFError, OSError):
            ours.close()
            raise MachineError("The process that reads HDF5 files has died. Run the same command again.") from None

    def close(self) -> None:
        """End the process."""
        self.control.close()
        self.process.wait()


_running: _Worker | None = None


def _worker() -> _Worker:
    global _running
    if _running is None or _running.process.poll() is not None:
        _running = _Worker()
    return _running

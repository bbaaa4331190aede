"""Read untrusted HDF5 files in a separate process (`hdf5_worker`) that a damaged file may hang or crash without harm.

h5py in this process does not serve: of 8,000 files with a few modified bytes, 2 made the HDF5 library hang inside C,
where no Python timeout applies.
Opening a file costs a fork of about ten milliseconds, and the first one also the start of the process.
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from vadv_dist.data.schema import Array
from vadv_dist.errors import MachineError, UserError

# For one request, in addition to what the library uses.
REQUEST_SECONDS = 60.0
REQUEST_BYTES = 2 << 30
# Maximum size of one request for rows.
PIECE_BYTES = 4 << 20
_LENGTH = struct.Struct("!I")
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
        seconds: time limit of one request (`REQUEST_SECONDS`).

    Raises:
        UserError: by every method, if the file is missing, not HDF5 or damaged, or lacks the requested object.
    """

    def __init__(self, path: Path, option: str, seconds: float | None = None) -> None:
        if not path.is_file():
            what = "is a folder, expected an HDF5 file" if path.is_dir() else "does not exist"
            raise UserError(f"{path} {what}. Give the file with {option}.")
        self.path = path
        self.seconds = REQUEST_SECONDS if seconds is None else seconds
        self._connection: socket.socket | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        limits = {"seconds": self.seconds, "bytes": REQUEST_BYTES}
        self._connection, self._pid = _worker().open(self.path.resolve(), limits)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, which also ends its process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def names(self, path: str) -> list[str]:
        """Names in a group."""
        names = self._call("names", path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._wrong()
        return names

    def describe(self, path: str) -> ArrayInfo:
        """Shape and kind of an array."""
        return _info(self._call("describe", path))

    def arrays(self, path: str) -> dict[str, ArrayInfo | None]:
        """Shape and kind of each name in a group; None if it is not a readable array, which `describe` explains."""
        return {name: None if raw is None else _info(raw) for name, raw in self._call("arrays", path).items()}

    def numbers(self, path: str, start: int, stop: int) -> Array:
        """Rows of an array of numbers, [stop - start, ...], as float32, float64 or int64."""
        header, data = self._call("read", path, start, stop)
        if not isinstance(header, dict):
            raise UserError(f"{self.path} has text at {path!r}, expected numbers. {_AGAIN}")
        values = np.frombuffer(data, header["dtype"]).reshape(header["shape"])
        if len(values) != stop - start:
            raise self._wrong()
        return values

    def whole(self, path: str) -> tuple[ArrayInfo, Any]:
        """Read a small array: its info, and its numbers as an array or its texts as a list."""
        raw, data = self._call("whole", path)
        info, rows = _info(raw), raw["rows"]
        return info, np.frombuffer(data, rows["dtype"]).reshape(rows["shape"]) if isinstance(rows, dict) else rows

    def _call(self, call: str, *arguments: object) -> Any:
        if self._connection is None:
            raise self._wrong()
        request = json.dumps({"call": call, "with": arguments}).encode()
        with contextlib.suppress(OSError):  # if the process has died, reading its reply reports that
            self._connection.sendall(_LENGTH.pack(len(request)) + request)
        return self._answer(call)

    def _answer(self, call: str) -> Any:
        header = json.loads(self._receive(_LENGTH.unpack(self._receive(_LENGTH.size))[0]))
        data = self._receive(header["bytes"])
        if "refused" in header:
            raise UserError(f"{self.path} {header['refused']}. {_AGAIN}")
        if "failed" in header:
            raise UserError(f"{self.path} cannot be read as HDF5 ({header['failed']}). {_AGAIN}")
        value = header["value"]
        return (value, data) if call in ("read", "whole") else value

    def _receive(self, size: int) -> bytearray:
        assert self._connection is not None
        content = bytearray(size)
        view, filled = memoryview(content), 0
        while filled < size:
            try:
                got = self._connection.recv_into(view[filled:])
            except ConnectionResetError:
                got = 0
            if not got:
                raise self._crashed()
            filled += got
        return content

    def _crashed(self) -> UserError:
        self.close()
        code = _worker().ended(self._pid)
        if code == -signal.SIGALRM:
            what = f"made the HDF5 library hang for more than {self.seconds:g} s"
        elif code < 0:
            what = f"crashed the HDF5 library ({signal.Signals(-code).name})"
        else:
            what = "ended the process that read it"
        return UserError(f"{self.path} {what}: it is damaged. {_AGAIN}")

    def _wrong(self) -> UserError:
        return UserError(f"{self.path} cannot be read as HDF5. {_AGAIN}")


def _info(raw: dict[str, Any]) -> ArrayInfo:
    return ArrayInfo(tuple(raw["shape"]), raw["kind"], raw["itemsize"])


class _Worker:
    """The process that forks a child for each file."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {
            **os.environ,
            "HDF5_PLUGIN_PRELOAD": "::",  # disables plugins, according to HDF5's manual
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        script = Path(__file__).with_name("hdf5_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # the C library reports a corrupted heap there
            start_new_session=True,
        )
        theirs.close()
        self.control = ours
        self.owner = os.getpid()
        self.lock = threading.Lock()

    @property
    def alive(self) -> bool:
        """Whether this process started it and it is still running."""
        return self.owner == os.getpid() and self.process.poll() is None

    def open(self, path: Path, limits: dict[str, Any]) -> tuple[socket.socket, int]:
        """Open a file; return the socket on which its process replies, and the process id."""
        ours, theirs = socket.socketpair()
        with theirs:
            order = json.dumps({"path": str(path), "limits": limits}).encode()
            with self.lock:
                try:
                    socket.send_fds(self.control, [order], [theirs.fileno()])
                    return ours, int(self._reply()["pid"])
                except (OSError, ValueError):
                    ours.close()
                    raise MachineError(
                        "The process that reads HDF5 files has died. Run the same command again."
                    ) from None

    def ended(self, pid: int) -> int:
        """How a file's process ended: an exit code, or a negative signal number."""
        with self.lock:
            try:
                self.control.sendall(json.dumps({"ended": pid}).encode())
                return int(self._reply()["code"])
            except (OSError, ValueError):
                return 0

    def close(self) -> None:
        """End the process."""
        self.control.close()
        if self.owner == os.getpid():
            self.process.wait()

    def _reply(self) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(self.control.recv(1 << 12))
        return reply


_running: _Worker | None = None
_starting = threading.Lock()


def _worker() -> _Worker:
    global _running
    with _starting:
        if _running is None or not _running.alive:
            _running = _Worker()
            atexit.register(_running.close)
        return _running

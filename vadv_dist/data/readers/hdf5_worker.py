"""The process in which HDF5 files are opened. It is started by its path, and imports nothing of this package.

The HDF5 library trusts its files: a damaged one may stop it for ever or crash it. So this process loads the library
once, and forks a child for every file that it is told to open. The child may take only so much memory and time, write
no file, load no plugin, and follow no link to another file; where it is killed, only it is lost.

Messages are JSON after their length; an answer may be followed by the bytes of an array.
"""

import json
import math
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any

import h5py
import numpy as np

LENGTH = struct.Struct("!I")
# Deflate, the densest filter in use, makes at most 1032 bytes of one.
MAX_EXPANSION = 1100
MAX_NAMES = 1_000_000
# Callers ask for pieces of some megabytes; only texts can be longer than was asked for.
MAX_ANSWER_BYTES = 256 << 20


class Refusal(Exception):  # noqa: N818  # an answer, not a fault
    """What a file or a request asks that is not given."""


class OpenFile:
    """Answers requests about one file."""

    def __init__(self, path: str) -> None:
        self.file = h5py.File(path, "r", locking=False)

    def find(self, path: str) -> Any:
        """The group or data set at a path of hard links: links to other places or files are not followed."""
        here = self.file
        for name in filter(None, path.split("/")):
            if not isinstance(here, h5py.Group) or name not in here:
                raise Refusal(f"has nothing at {path!r}")
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                raise Refusal(f"has a link at {path!r}, and links are not followed")
            here = here[name]
        return here

    def names(self, path: str) -> list[str]:
        """Names in a group."""
        group = self.find(path)
        if not isinstance(group, h5py.Group):
            raise Refusal(f"has no group at {path!r}")
        if len(group) > MAX_NAMES:
            raise Refusal(f"has {len(group):,} names at {path!r}, {MAX_NAMES:,} at most")
        return [str(name) for name in group]

    def describe(self, path: str) -> dict[str, Any]:
        """Shape and type of a data set whose rows are all there."""
        dataset = self.find(path)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise Refusal(f"has no array at {path!r}")
        if dataset.external or dataset.is_virtual:
            raise Refusal(f"keeps the values of {path!r} in other files, which are not read")
        kind = "text" if h5py.check_string_dtype(dataset.dtype) is not None else dataset.dtype.kind
        if kind not in ("f", "i", "u", "text"):
            raise Refusal(f"holds {dataset.dtype} at {path!r}, expected numbers or strings")
        claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
        kept = dataset.id.get_storage_size()
        filtered = dataset.id.get_create_plist().get_nfilters() > 0
        if claimed > kept * (MAX_EXPANSION if filtered else 1):
            raise Refusal(f"declares {claimed:,} bytes at {path!r}, but keeps {kept:,}")
        return {"shape": list(dataset.shape), "kind": kind, "itemsize": dataset.dtype.itemsize}

    def whole(self, path: str) -> tuple[Any, bytes]:
        """All rows of a small array, as `read` gives them, with what `describe` says."""
        about = self.describe(path)
        if math.prod(about["shape"]) * about["itemsize"] > MAX_ANSWER_BYTES // 2:
            raise Refusal(f"has {about['shape']} values at {path!r}, more than {MAX_ANSWER_BYTES // 2:,} bytes")
        rows, data = self.read(path, 0, about["shape"][0]) if about["shape"] else ([], b"")
        return {**about, "rows": rows}, data

    def read(self, path: str, start: int, stop: int) -> tuple[Any, bytes]:
        """Some rows: numbers as float64, float32 or int64 of this machine, strings as JSON."""
        self.describe(path)
        dataset = self.find(path)
        if h5py.check_string_dtype(dataset.dtype) is not None:
            values = dataset[start:stop].reshape(-1).tolist()
            return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values], b""
        values = np.asarray(dataset[start:stop])
        wanted = {"i": "i8", "u": "i8"}.get(values.dtype.kind, "f8" if values.dtype.itemsize > 4 else "f4")
        values = np.ascontiguousarray(values, wanted)
        return {"shape": list(values.shape), "dtype": wanted}, values.tobytes()


def serve(connection: socket.socket, path: str, limits: dict[str, Any]) -> None:
    """Answer requests about a file until the other side closes."""
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
    file: OpenFile | None = None
    request: dict[str, Any] = {}
    while True:
        answer: dict[str, Any] = {}
        data = b""
        try:
            if file is None:
                file = OpenFile(path)
                answer = {"value": None}
            else:
                value = getattr(file, request["call"])(*request["with"])
                value, data = value if isinstance(value, tuple) else (value, b"")
                answer = {"value": value}
        except Refusal as refusal:
            answer = {"refused": str(refusal)}
        except MemoryError:
            answer = {"refused": "asks for more memory than it may have"}
        except Exception as error:  # h5py raises nearly every type on damaged files
            answer = {"failed": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}
        header = json.dumps({**answer, "bytes": len(data)}).encode()
        if len(header) + len(data) > MAX_ANSWER_BYTES:
            header, data = json.dumps({"refused": "holds texts of many megabytes", "bytes": 0}).encode(), b""
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.sendall(LENGTH.pack(len(header)) + header)
        connection.sendall(data)
        if (length := connection.recv(LENGTH.size, socket.MSG_WAITALL)) == b"":
            return
        request = json.loads(connection.recv(LENGTH.unpack(length)[0], socket.MSG_WAITALL))
        if request["call"] not in ("names", "describe", "read", "whole"):
            return
        signal.setitimer(signal.ITIMER_REAL, limits["seconds"])


def limit_child(limits: dict[str, Any]) -> None:
    """Bound memory, and allow no file to be written and no core to be dumped."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + limits["bytes"],) * 2)
    except (OSError, ValueError):  # a system that counts otherwise
        pass


def main(control: socket.socket) -> None:
    """Fork a child for each file, and say how children ended, until the other side closes."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        order = json.loads(message)
        if "ended" in order:
            _, status = os.waitpid(order["ended"], 0)
            control.sendall(json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            try:
                control.close()
                limit_child(order["limits"])
                serve(socket.socket(fileno=descriptors[0]), order["path"], order["limits"])
            finally:
                os._exit(0)
        os.close(descriptors[0])
        control.sendall(json.dumps({"pid": pid}).encode())


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))

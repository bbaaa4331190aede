"""The process in which HDF5 files are opened. It is started by its path and imports nothing from this package.

The HDF5 library trusts its files: a damaged one may hang or crash it. This process loads the library once and forks a
child for every file to open. The child has limits on memory and time, cannot write files or load plugins, and does not
follow links to other files; if it is killed, nothing else is affected.

Messages are JSON, preceded by their length; a reply may be followed by the bytes of an array.
"""

import json
import math
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

LENGTH = struct.Struct("!I")
# Deflate, the densest filter in use, expands at most 1032 times.
MAX_EXPANSION = 1100
MAX_NAMES = 1_000_000
MAX_REMEMBERED = 1000
CALLS = ("names", "arrays", "describe", "read", "whole")
# Callers request a few megabytes at a time; only texts and names can exceed the request. As Python strings they take
# several times as much memory in the process that reads the reply.
MAX_ANSWER_BYTES = 256 << 20
MAX_TEXT_BYTES = 32 << 20
MAX_TEXTS = 2_000_000


class Refusal(Exception):  # noqa: N818  # a reply, not a fault
    """A request that is refused, with the reason."""


class OpenFile:
    """Answers requests about one file."""

    def __init__(self, path: str) -> None:
        self.file = h5py.File(path, "r", locking=False)

    def find(self, path: str) -> Any:
        """The group or data set at a path of hard links; soft and external links are not followed."""
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
            raise Refusal(f"has {len(group):,} names at {path!r}, but the limit is {MAX_NAMES:,}")
        return [str(name) for name in group]

    def arrays(self, path: str) -> dict[str, Any]:
        """Result of `describe` for each name in a group; None if it refuses."""
        found: dict[str, Any] = {}
        for name in self.names(path):
            try:
                found[name] = self.describe(f"{path}/{name}")
            except Refusal:
                found[name] = None
        return found

    def describe(self, path: str) -> dict[str, Any]:
        """Shape and type of a data set whose rows are all present."""
        dataset = self.find(path)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            raise Refusal(f"has no array at {path!r}")
        if dataset.external or dataset.is_virtual:
            raise Refusal(f"stores the values of {path!r} in other files, which are not read")
        kind = "text" if h5py.check_string_dtype(dataset.dtype) is not None else dataset.dtype.kind
        if kind not in ("f", "i", "u", "text"):
            raise Refusal(f"has {dataset.dtype} at {path!r}, expected numbers or strings")
        claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
        kept = dataset.id.get_storage_size()
        filtered = dataset.id.get_create_plist().get_nfilters() > 0
        if claimed > kept * (MAX_EXPANSION if filtered else 1):
            raise Refusal(f"declares {claimed:,} bytes at {path!r}, but stores {kept:,}")
        return {"shape": list(dataset.shape), "kind": kind, "itemsize": dataset.dtype.itemsize}

    def whole(self, path: str) -> tuple[Any, bytes]:
        """All rows of a small array as returned by `read`, with the result of `describe`."""
        about = self.describe(path)
        if math.prod(about["shape"]) * about["itemsize"] > MAX_ANSWER_BYTES // 2:
            raise Refusal(f"has {about['shape']} values at {path!r}, more than {MAX_ANSWER_BYTES // 2:,} bytes")
        rows, data = self.read(path, 0, about["shape"][0]) if about["shape"] else ([], b"")
        return {**about, "rows": rows}, data

    def read(self, path: str, start: int, stop: int) -> tuple[Any, bytes]:
        """Some rows: numbers as float64, float32 or int64 in native byte order, strings as JSON."""
        self.describe(path)
        dataset = self.find(path)
        if h5py.check_string_dtype(dataset.dtype) is not None:
            if math.prod(dataset.shape) > MAX_TEXTS:
                raise Refusal(f"has {math.prod(dataset.shape):,} texts at {path!r}, but the limit is {MAX_TEXTS:,}")
            values = dataset[start:stop].reshape(-1).tolist()
            return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values], b""
        values = np.asarray(dataset[start:stop])
        wanted = {"i": "i8", "u": "i8"}.get(values.dtype.kind, "f8" if values.dtype.itemsize > 4 else "f4")
        values = np.ascontiguousarray(values, wanted)
        return {"shape": list(values.shape), "dtype": wanted}, values.tobytes()


def serve(connection: socket.socket, path: str, limits: dict[str, Any]) -> None:
    """Reply to requests about a file until the other side closes."""
    signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
    file: OpenFile | None = None

    def open_file() -> None:
        nonlocal file
        file = OpenFile(path)

    failure, _ = answer(open_file)
    while True:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if (length := connection.recv(LENGTH.size, socket.MSG_WAITALL)) == b"":
            return
        request = json.loads(connection.recv(LENGTH.unpack(length)[0], socket.MSG_WAITALL))
        if request["call"] not in CALLS:
            return
        signal.setitimer(signal.ITIMER_REAL, limits["seconds"])
        said, data = (failure, b"") if file is None else answer(getattr(file, request["call"]), *request["with"])
        header = json.dumps({**said, "bytes": len(data)}).encode()
        if len(header) > MAX_TEXT_BYTES or len(data) > MAX_ANSWER_BYTES:
            header, data = json.dumps({"refused": "has texts of many megabytes", "bytes": 0}).encode(), b""
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.sendall(LENGTH.pack(len(header)) + header)
        connection.sendall(data)


def answer(call: Callable[..., Any], *arguments: Any) -> tuple[dict[str, Any], bytes]:
    """The result of a call and the bytes of its array, or the reason for a refusal."""
    try:
        value = call(*arguments)
    except Refusal as refusal:
        return {"refused": str(refusal)}, b""
    except MemoryError:
        return {"refused": "needs more memory than allowed"}, b""
    except Exception as error:  # h5py raises nearly any type on damaged files
        return {"failed": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}, b""
    value, data = value if isinstance(value, tuple) else (value, b"")
    return {"value": value}, data


def limit_child(limits: dict[str, Any]) -> None:
    """Limit memory, and forbid writing files and core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + limits["bytes"],) * 2)
    except (OSError, ValueError):  # not supported by every system
        pass


def main(control: socket.socket) -> None:
    """Fork a child for each file and report how children ended, until the other side closes."""
    ended: dict[int, int] = {}
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not message:
            return
        for child in list(children):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                children.remove(pid)
                ended[pid] = status
        order = json.loads(message)
        if "ended" in order:
            pid = order["ended"]
            status = ended.pop(pid) if pid in ended else os.waitpid(pid, 0)[1]
            children.discard(pid)
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
        children.add(pid)
        control.sendall(json.dumps({"pid": pid}).encode())
        while len(ended) > MAX_REMEMBERED:
            ended.pop(next(iter(ended)))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))

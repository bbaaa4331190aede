"""The process in which HDF5 files are opened. It is started by its path and imports nothing from this package.

The HDF5 library trusts its files: a damaged one may hang or crash it. This process loads the library once and forks a
child for every file to open. The child has limits on memory and time, cannot write files or load plugins, and does not
follow links to other files; if it is killed, nothing else is affected.

A request is a JSON list: a method of `OpenFile` and its arguments. A reply is JSON and the bytes of an array.
"""

import json
import math
import os
import resource
import signal
import socket
from collections.abc import Callable
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any

import h5py
import numpy as np

# For one file, in addition to what the library uses.
MAX_BYTES = 2 << 30
# Deflate, the densest filter in use, expands at most 1032 times.
MAX_EXPANSION = 1100
MAX_NAMES = 1_000_000
# Callers request a few megabytes of rows at a time, or a small array. As Python strings, texts and names take several
# times as much memory in the process that reads the reply.
MAX_ARRAY_BYTES = 128 << 20
MAX_TEXT_BYTES = 32 << 20
MAX_TEXTS = 2_000_000


class Refusal(Exception):  # noqa: N818  # a reply, not a fault
    """A request that is refused, with the reason."""


class OpenFile:
    """Answers requests about one file, which the first request opens."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def file(self) -> Any:
        """The file as h5py opens it."""
        return h5py.File(self.path, "r", locking=False)

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

    def describe(self, path: str) -> tuple[tuple[int, ...], str, int]:
        """Shape, kind and item size of a data set whose rows are all present."""
        dataset = self.find(path)
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
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
        return dataset.shape, kind, dataset.dtype.itemsize

    def read(self, path: str, start: int, stop: int | None) -> Any:
        """Some rows: a list of strings, or an array of float64, float32 or int64 in native byte order."""
        shape, kind, itemsize = self.describe(path)
        dataset = self.find(path)
        num_values = ((shape[0] if stop is None else stop) - start) * math.prod(shape[1:])
        if num_values * itemsize > MAX_ARRAY_BYTES:
            raise Refusal(f"has {num_values:,} values at {path!r}, but the limit is {MAX_ARRAY_BYTES:,} bytes")
        if kind == "text":
            if num_values > MAX_TEXTS:
                raise Refusal(f"has {num_values:,} texts at {path!r}, but the limit is {MAX_TEXTS:,}")
            values = dataset[start:stop].reshape(-1).tolist()
            return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
        values = np.asarray(dataset[start:stop])
        wanted = {"i": "i8", "u": "i8"}.get(values.dtype.kind, "f8" if values.dtype.itemsize > 4 else "f4")
        return values.astype(wanted)


def serve(connection: Connection, path: str, seconds: float) -> None:
    """Reply to requests about a file until the other side closes; a request that takes longer ends the process."""
    file = OpenFile(path)
    connection.send_bytes(str(os.getpid()).encode())
    while True:
        call, *arguments = json.loads(connection.recv_bytes())
        signal.setitimer(signal.ITIMER_REAL, seconds)
        reply, data = respond(getattr(file, call), *arguments)
        header = json.dumps(reply).encode()
        if len(header) > MAX_TEXT_BYTES:
            header, data = json.dumps({"refused": "has texts of many megabytes"}).encode(), b""
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(header)
        connection.send_bytes(data)


def respond(call: Callable[..., Any], *arguments: Any) -> tuple[dict[str, Any], bytes]:
    """The result of a call and the bytes of its array, or the reason for a refusal."""
    try:
        value = call(*arguments)
        if isinstance(value, np.ndarray):
            return {"value": {"shape": value.shape, "dtype": value.dtype.str}}, value.tobytes()
        return {"value": value}, b""
    except Refusal as refusal:
        return {"refused": str(refusal)}, b""
    except MemoryError:
        return {"refused": "needs more memory than allowed"}, b""
    except Exception as error:  # h5py raises nearly any type on damaged files
        return {"failed": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}, b""


def limit_child() -> None:
    """Limit memory, and forbid writing files and core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_BYTES,) * 2)
    except (OSError, ValueError):  # not supported by every system
        pass


def main(control: socket.socket) -> None:
    """Fork a child for each file until the other side closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children need no waiting
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not order:
            return
        if os.fork() == 0:
            try:
                control.close()
                limit_child()
                serve(Connection(descriptors[0]), *json.loads(order))
            finally:
                os._exit(0)
        os.close(descriptors[0])


if __name__ == "__main__":
    main(socket.socket(fileno=0))

"""A growing file of lines: one process appends, others follow.

Lines cannot be appended to an object, so it is rewritten every few seconds, by a thread: the process that appends
does not wait for the store.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vadv_dist.errors import VadvError
from vadv_dist.storage.objects import Location, S3Path
from vadv_dist.storage.writes import disk_faults, flush_folder, write_text

# An object is written at most this often, and writing it takes at most this share of the time.
_SHORTEST_INTERVAL_S, _WRITING_SHARE = 3.0, 0.02
# Objects are read less often, because each read is a request.
_OBJECT_INTERVAL_S = 2.0


class LineFile:
    """A file of lines, each with its line break; only one process may write it."""

    def __init__(self, path: Location) -> None:
        self._path = path
        self._lines: list[str] | None = None  # all lines of an object
        self._changes = self._written = 0
        self._due = 0.0
        self._changing, self._writing = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def append(self, line: str) -> None:
        """Add a line; in an object it appears a few seconds later, or with `flush`.

        Raises:
            VadvError: the disk is full, or earlier lines could not be written to the object.
        """
        if isinstance(self._path, Path):
            with disk_faults(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(line)
            return
        before = self.lines() if self._lines is None else self._lines
        with self._changing:
            self._lines = before
            self._lines.append(line)
            self._changes += 1
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if time.monotonic() >= self._due and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._write_later, name="vadv-lines", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Make appended lines survive a loss of power, or write them to the object; any thread may call it.

        Raises:
            VadvError: the disk fails, or the store does not take them.
        """
        with self._writing:
            if isinstance(self._path, Path):
                with contextlib.suppress(FileNotFoundError), disk_faults(self._path), self._path.open("rb") as file:
                    os.fsync(file.fileno())
                    flush_folder(self._path.parent)
                return
            with self._changing:
                text, changes = "".join(self._lines or []), self._changes
            if changes == self._written:
                return
            began = time.monotonic()
            write_text(self._path, text)
            now = time.monotonic()
            self._due = now + max(_SHORTEST_INTERVAL_S, (now - began) / _WRITING_SHARE)
            self._written = changes

    def _write_later(self) -> None:
        try:
            self.flush()
        except Exception as error:  # raised by the next `append`
            self._error = error

    def lines(self) -> list[str]:
        """All written lines; the last one may be incomplete."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [f"{line}\n" for line in text.splitlines()]

    def replace(self, lines: Sequence[str]) -> None:
        """Replace all lines."""
        with self._writing, self._changing:
            write_text(self._path, "".join(lines))
            self._lines, self._written = [*lines] if isinstance(self._path, S3Path) else None, self._changes


class LineReader:
    """Follows a file of lines that another process writes, from its first line.

    Attributes:
        interval_s: seconds to wait between two calls of `new`.
    """

    def __init__(self, path: Location, interval_s: float) -> None:
        self._path = path
        self.interval_s = max(interval_s, _OBJECT_INTERVAL_S) if isinstance(path, S3Path) else interval_s
        self._offset = 0
        self._version: int | str | None = None

    def new(self) -> Iterator[bytes]:
        """Yield the lines written since the last call; all lines again if the file was replaced.

        An object is replaced with each write. If it cannot be read, the next call tries again.
        """
        if isinstance(self._path, S3Path):
            with contextlib.suppress(OSError, VadvError):
                version = self._path.etag()
                if version is not None and version != self._version:
                    lines = self._path.read_bytes().splitlines(keepends=True)
                    self._version = version
                    yield from lines
        elif self._path.is_file():
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if inode != self._version:
                    self._version, self._offset = inode, 0
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    yield line

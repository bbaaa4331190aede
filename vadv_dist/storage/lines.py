"""A growing file of lines: one process appends, others follow.

Lines cannot be appended to an object, so it is rewritten every few seconds.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vadv_dist.errors import VadvError
from vadv_dist.storage.objects import Location, S3Path
from vadv_dist.storage.writes import disk_faults, write_text

# An object is written at most this often, and writing it takes at most this share of the time.
_SHORTEST_INTERVAL_S, _WRITING_SHARE = 3.0, 0.02
# Objects are read less often, because each read is a request.
_OBJECT_INTERVAL_S = 2.0


class LineFile:
    """A file of lines, each with its line break; only one process may write it."""

    def __init__(self, path: Location) -> None:
        self._path = path
        self._lines: list[str] | None = None  # all lines of an object
        self._unwritten = False
        self._due = 0.0

    def append(self, line: str) -> None:
        """Add a line; in an object it appears a few seconds later, or with `flush`."""
        if isinstance(self._path, Path):
            with disk_faults(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(line)
            return
        self._lines = self.lines() if self._lines is None else self._lines
        self._lines.append(line)
        self._unwritten = True
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write appended lines to the object."""
        if self._unwritten:
            began = time.monotonic()
            write_text(self._path, "".join(self._lines or []))
            now = time.monotonic()
            self._due = now + max(_SHORTEST_INTERVAL_S, (now - began) / _WRITING_SHARE)
            self._unwritten = False

    def lines(self) -> list[str]:
        """All written lines; the last one may be incomplete."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [f"{line}\n" for line in text.splitlines()]

    def replace(self, lines: Sequence[str]) -> None:
        """Replace all lines."""
        write_text(self._path, "".join(lines))
        self._lines, self._unwritten = [*lines] if isinstance(self._path, S3Path) else None, False


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

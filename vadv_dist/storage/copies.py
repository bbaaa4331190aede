"""Content of files that is read by seeking in it, such as videos, and their hashes.

An object is fetched whole and then read as a file, since its hash needs every byte anyway: a small one into memory, a
larger one into an unnamed temporary file that disappears with the process. The object fetched last is kept, because
rows of a list that name the same file usually follow each other.
"""

import errno
import hashlib
import io
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from vadv_dist.storage.objects import Location, S3Path
from vadv_dist.storage.reads import sha256_file
from vadv_dist.storage.writes import disk_faults

# Bytes of an object's key, https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_LONGEST_KEY = 1024


@dataclass(frozen=True)
class FileContent:
    """A file as it was when it was looked at or fetched.

    Attributes:
        place: where it is.
        version: differs where its content does: an ETag, or the time of a file's last change.
        size: its bytes.
        source: what it is read from.
    """

    place: Location
    version: str | int
    size: int
    source: Path | bytes | IO[bytes]
    digest: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 in hex; a file of the disk is hashed once while it stays as it is."""
        return self.digest or _sha256(self)

    def open(self) -> IO[bytes]:
        """Open it for reading; readers of an object take turns, as they share one position."""
        if isinstance(self.source, Path):
            return self.source.open("rb")
        if isinstance(self.source, bytes):
            return io.BytesIO(self.source)
        file = os.fdopen(os.dup(self.source.fileno()), "rb")
        file.seek(0)
        return file


_last: FileContent | None = None


def content_of(place: Location, safe: str) -> FileContent:
    """Return a file's content, to be opened and hashed: what was fetched last where it is still that.

    Args:
        place: the file.
        safe: what is safe if the disk for copies is full, for the message.
    Raises:
        FileNotFoundError: there is no such file.
        ConflictError: the object was changed while it was fetched.
        OSError: the name is too long.
        UserError: there is no such bucket, or the object store refuses access.
        MachineError: the object store does not answer, or the disk for copies is full.
    """
    global _last
    if isinstance(place, Path):
        if not place.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
        status = place.stat()
        return FileContent(place, status.st_mtime_ns, status.st_size, place)
    if len(place.key.encode()) > _LONGEST_KEY:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(place))
    if _last is None or _last.place != place or place.etag() != _last.version:
        if _last is not None and not isinstance(_last.source, Path | bytes):
            _last.source.close()  # its space is free before the next one takes some
        _last = None
        _last = _fetch(place, safe)
    return _last


@lru_cache(maxsize=64)
def _sha256(content: FileContent) -> str:
    return sha256_file(content.place)


def _fetch(place: S3Path, safe: str) -> FileContent:
    if not place.key:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
    opened = place.open()
    if opened.size == len(opened.first):
        digest = hashlib.sha256(opened.first).hexdigest()
        return FileContent(place, opened.etag, opened.size, opened.first, digest)
    running = hashlib.sha256()
    with disk_faults(Path(tempfile.gettempdir()), safe):
        file = tempfile.TemporaryFile(prefix="vadv-clip-")  # noqa: SIM115  # open as long as its copy is kept
        try:
            for part in opened.parts():
                running.update(part)
                file.write(part)
            file.flush()
        except BaseException:
            file.close()
            raise
    return FileContent(place, opened.etag, opened.size, file, running.hexdigest())

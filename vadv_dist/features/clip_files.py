"""Opens and hashes the files of clips, wherever they are; every access to clips goes through here.

A clip in an object store is fetched whole and then read as a file, since its hash wants every byte of it anyway: a
small one into memory, a larger one into a nameless file of this machine that ends with the process. The one fetched
last is kept, as clips that are parts of one video stand together in most lists.
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

from vadv_dist.features.timeline import BadClipError
from vadv_dist.storage import ConflictError, S3Path, disk_faults, location

_HASH_PIECE = 1 << 20
# Bytes of an object's key, https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_LONGEST_KEY = 1024


def open_clip(uri: str) -> IO[bytes]:
    """Open a clip's file for reading.

    Raises:
        BadClipError: there is no such file, it is empty, or it cannot be read.
        UserError: there is no such bucket, or the object store refuses access: this is not the clip's fault.
        MachineError: the object store does not answer, or the disk for copies is full.
    """
    path = location(uri)
    if isinstance(path, S3Path):
        return _copy_of(path).open()
    try:
        if not path.is_file():
            raise BadClipError("missing file")
        if path.stat().st_size == 0:
            raise BadClipError("empty file")
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise BadClipError(f"unreadable: {error}") from None


def open_hashed(uri: str) -> tuple[IO[bytes], int, str]:
    """Open a clip's file, and tell its bytes and SHA-256; many clips may be parts of one file, which is hashed once.

    Raises:
        BadClipError, UserError, MachineError: as `open_clip`.
    """
    path = location(uri)
    if isinstance(path, S3Path):
        copy = _copy_of(path)
        return copy.open(), copy.size, copy.sha256
    file = open_clip(uri)
    try:
        return file, *_hashed(path, path.stat().st_mtime_ns)
    except OSError as error:
        file.close()
        raise BadClipError(f"unreadable: {error.strerror}") from None


@lru_cache(maxsize=64)
def _hashed(path: Path, _modified_ns: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with open_clip(str(path)) as file:
        while piece := file.read(_HASH_PIECE):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


@dataclass(frozen=True)
class _Copy:
    """An object as it was when it was fetched."""

    place: S3Path
    etag: str
    size: int
    sha256: str
    content: bytes | IO[bytes]

    def open(self) -> IO[bytes]:
        """A file of its own for each reader, one after the other."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        file = os.fdopen(os.dup(self.content.fileno()), "rb")
        file.seek(0)
        return file


_last: _Copy | None = None


def _copy_of(place: S3Path) -> _Copy:
    """The object's content: what was fetched last where it is still that, else fetched anew."""
    global _last
    if len(place.key.encode()) > _LONGEST_KEY:
        raise BadClipError(f"unreadable: {os.strerror(errno.ENAMETOOLONG)}")
    if _last is not None and _last.place == place and place.etag() == _last.etag:
        return _last
    _last = None  # its room is free before the next one takes some
    try:
        _last = _fetch(place)
    except FileNotFoundError:
        raise BadClipError("missing file") from None
    except ConflictError:
        raise BadClipError("unreadable: it was changed while it was read") from None
    return _last


def _fetch(place: S3Path) -> _Copy:
    if not place.key:
        raise FileNotFoundError
    opened = place.open()
    if opened.size == 0:
        raise BadClipError("empty file")
    if opened.size == len(opened.first):
        digest = hashlib.sha256(opened.first).hexdigest()
        return _Copy(place, opened.etag, opened.size, digest, opened.first)
    running = hashlib.sha256()
    with disk_faults(Path(tempfile.gettempdir()), "Complete shards are safe."):
        file = tempfile.TemporaryFile(prefix="vadv-clip-")  # noqa: SIM115  # open as long as its copy is kept
        for part in opened.parts():
            running.update(part)
            file.write(part)
        file.flush()
    return _Copy(place, opened.etag, opened.size, running.hexdigest(), file)

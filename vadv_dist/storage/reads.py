"""Reading files: whole, in ranges, or without a copy from a disk; and what is known of a file before it is read."""

import hashlib
import io
import mmap
import os
import shutil
import time
from collections.abc import Iterator
from typing import IO, Any

from vadv_dist.errors import UserError
from vadv_dist.formats.json_text import MAX_BYTES, JsonError, parse_json
from vadv_dist.storage.objects import Location, S3Path

# Files worth reading at the same time: a disk is kept busy by a few, a request to a store mostly waits.
_FILES_AT_ONCE, _OBJECTS_AT_ONCE = min(4, os.cpu_count() or 1), 4


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of a buffer, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Location) -> str:
    """Return the SHA-256 of a file, in hex, reading it in pieces."""
    if isinstance(path, S3Path):
        digest = hashlib.sha256()
        for part in path.read_parts(path.size()):
            digest.update(part)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_binary(path: Location) -> IO[bytes]:
    """Open a file for reading; of an object store it is fetched whole into memory.

    Raises:
        FileNotFoundError: there is none.
    """
    return io.BytesIO(path.read_bytes()) if isinstance(path, S3Path) else path.open("rb")


def open_ranges(path: Location, size: int) -> IO[bytes]:
    """Open a file of `size` bytes for reading parts of it; each read of an object requests its range alone.

    Raises:
        FileNotFoundError: there is none on the disk; an object that is missing is noticed by the first read.
    """
    if not isinstance(path, S3Path):
        return path.open("rb")
    from fsspec.spec import AbstractBufferedFile

    place = path

    class Ranges(AbstractBufferedFile):  # type: ignore[misc]  # untyped in fsspec
        def _fetch_range(self, start: int, end: int) -> bytes:
            return place.read_bytes(start, end)

    file: IO[bytes] = Ranges(None, str(path), size=size, cache_type="none")
    return file


def file_content(path: Location, size: int) -> bytes | mmap.mmap:
    """Return the `size` bytes of a file, from a disk without a copy.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(path, S3Path):
        return b"".join(path.read_parts(size))
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


def file_size(path: Location) -> int:
    """Bytes of a file.

    Raises:
        FileNotFoundError: there is none.
    """
    return path.size() if isinstance(path, S3Path) else path.stat().st_size


def etag(path: Location) -> str | None:
    """What an object store calls a file's present content; None where there is no file, and on a disk."""
    return path.etag() if isinstance(path, S3Path) else None


def files_below(folder: Location) -> Iterator[str]:
    """Names of all files below a folder, relative to it; none where there is no such folder."""
    if isinstance(folder, S3Path):
        yield from (file.key.removeprefix(f"{folder.key}/") for file in folder.files())
    else:
        yield from (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def reads_at_once(folder: Location) -> int:
    """How many files of a folder are worth reading at the same time."""
    return _OBJECTS_AT_ONCE if isinstance(folder, S3Path) else _FILES_AT_ONCE


def clock_skew_s(file: Location) -> float | None:
    """Seconds by which an object store's clock is ahead of this machine's; None on a disk.

    Raises:
        FileNotFoundError: there is no such object.
    """
    return file.clock_s() - time.time() if isinstance(file, S3Path) else None


def free_bytes(folder: Location) -> int | None:
    """Free bytes of the disk that holds a folder, which need not exist yet; None in an object store."""
    if isinstance(folder, S3Path):
        return None
    absolute = folder.resolve()
    return shutil.disk_usage(next(place for place in (absolute, *absolute.parents) if place.is_dir())).free


def read_json(path: Location) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing, is not JSON, or holds something other than an object.
    """
    try:
        value = parse_json(_read_at_most(path, MAX_BYTES + 1))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (OSError, JsonError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}, expected an object.")
    return value


def _read_at_most(path: Location, size: int) -> bytes:
    """The first bytes of a file."""
    if isinstance(path, S3Path):
        return path.read_bytes(0, size) if path.size() > size else path.read_bytes()
    with path.open("rb") as file:
        return file.read(size)

"""Reading files: whole, in ranges, with seeks, or memory-mapped; and what is known of a file without reading it."""

import atexit
import contextlib
import errno
import hashlib
import io
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any

from vadv_dist.errors import UserError, VadvError
from vadv_dist.formats.json_text import MAX_BYTES, JsonError, parse_json
from vadv_dist.storage.objects import Location, S3Path
from vadv_dist.storage.writes import disk_faults, scratch_folder

# Bytes of an object's key, https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_LONGEST_KEY = 1024


@dataclass(frozen=True)
class FileContent:
    """Content of a file that is read with seeks, such as a video.

    Attributes:
        place: the file.
        version: changes with the content: an object's ETag, or the time of a file's last change.
        size: its bytes.
        source: where it is read from: the file, or an unnamed temporary copy of an object.
        digest: SHA-256 of an object.
    """

    place: Location
    version: str | int
    size: int
    source: Path | IO[bytes]
    digest: str | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 in hex; a file on disk is hashed once unless it changes."""
        return self.digest or _sha256(self)

    def open(self) -> IO[bytes]:
        """Open it for reading; readers of an object must take turns, because they share one position."""
        if isinstance(self.source, Path):
            return self.source.open("rb")
        file = os.fdopen(os.dup(self.source.fileno()), "rb")
        file.seek(0)
        return file


# The last object that was fetched is kept, because rows of a list that name the same file usually follow each other.
_last: FileContent | None = None


def content_of(place: Location) -> FileContent:
    """Return a file's content, to be opened and hashed; an object is copied, since its hash needs every byte anyway.

    Raises:
        FileNotFoundError: there is no such file.
        ConflictError: the object was changed while it was fetched.
        OSError: the name is too long.
        UserError: there is no such bucket, or the object store denies access.
        MachineError: the object store does not respond, or the disk for copies is full.
    """
    global _last
    if isinstance(place, Path):
        if not place.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
        status = place.stat()
        return FileContent(place, status.st_mtime_ns, status.st_size, place)
    if not place.key:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
    if len(place.key.encode()) > _LONGEST_KEY:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(place))
    if _last is None or _last.place != place or place.etag() != _last.version:
        if _last is not None and not isinstance(_last.source, Path):
            _last.source.close()  # frees its space before the next copy is written
        _last = None
        _last = _fetch(place)
    return _last


@lru_cache(maxsize=64)
def _sha256(content: FileContent) -> str:
    return sha256_file(content.place)


def _fetch(place: S3Path) -> FileContent:
    opened, digest = place.open(), hashlib.sha256()
    with disk_faults(Path(tempfile.gettempdir())):
        file = tempfile.TemporaryFile(prefix="vadv-clip-")  # noqa: SIM115  # open while the copy is in use
        try:
            for part in opened.parts:
                digest.update(part)
                file.write(part)
            file.flush()
        except BaseException:
            file.close()
            raise
    return FileContent(place, opened.etag, opened.size, file, digest.hexdigest())


def sha256_file(path: Location) -> str:
    """SHA-256 of a file, in hex; the file is read in pieces."""
    if isinstance(path, S3Path):
        digest = hashlib.sha256()
        for part in path.open().parts:
            digest.update(part)
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_binary(path: Location) -> IO[bytes]:
    """Open a file for reading; an object is fetched whole into memory.

    Raises:
        FileNotFoundError: there is none.
    """
    return io.BytesIO(path.read_bytes()) if isinstance(path, S3Path) else path.open("rb")


def open_ranges(path: Location, size: int) -> IO[bytes]:
    """Open a file of `size` bytes for reading parts of it; each read of an object requests only its range.

    Raises:
        FileNotFoundError: there is none on the disk; a missing object raises at the first read.
    """
    if not isinstance(path, S3Path):
        return path.open("rb")
    from fsspec.spec import AbstractBufferedFile

    place = path

    class Ranges(AbstractBufferedFile):  # type: ignore[misc]  # untyped in fsspec
        def _fetch_range(self, start: int, end: int) -> bytes:
            return place.read_range(start, end)

    file: IO[bytes] = Ranges(None, str(path), size=size, cache_type="none")
    return file


@contextmanager
def local_copy(path: Location, names: Sequence[str] | None = None) -> Iterator[Path]:
    """Yield the local path of a file or folder: itself, or a copy that is removed afterwards.

    Args:
        path: a file or a folder.
        names: the folder's files to copy, if they exist; None copies all.
    Raises:
        FileNotFoundError: there is no such object.
    """
    if not isinstance(path, S3Path):
        yield path
        return
    with scratch_folder() as folder:
        copy = folder / (path.name or path.bucket)
        found = list(files_below(path)) if names is None else names
        if names is None and not found:
            path.download(copy)
        else:
            copy.mkdir()
        for name in found:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                (path / name).download(copy / name)
        try:
            yield copy
        except VadvError as error:
            error.copies[str(copy)] = str(path)
            raise


@cache
def copy_of_folder(place: str) -> str:
    """The local path of a folder for a library that opens paths: of s3://…, a copy that lasts as long as this process.

    Args:
        place: a URI; a path or any other name is returned as it is, and so is a URI without objects.
    """
    if not place.startswith("s3://"):
        return place
    copies = contextlib.ExitStack()
    try:
        copy = copies.enter_context(local_copy(S3Path.parse(place)))
    except FileNotFoundError:
        return place
    atexit.register(copies.close)
    return str(copy)


def file_content(path: Location, size: int) -> bytes | mmap.mmap:
    """Return the `size` bytes of a file, memory-mapped if on disk.

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
    """An object store's identifier of a file's content; None if there is no such object, and on a disk."""
    return path.etag() if isinstance(path, S3Path) else None


def file_version(path: Location) -> str:
    """Size and version of a file: text that changes with its content, found without reading it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(path, S3Path):
        return f"{path.size()} {path.etag()}"
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def files_below(folder: Location) -> Iterator[str]:
    """Names of all files below a folder, relative to it; none if there is no such folder."""
    if isinstance(folder, S3Path):
        yield from (file.key.removeprefix(f"{folder.key}/") for file in folder.files())
    else:
        yield from (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def file_entries(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return size and SHA-256 of every file below a folder, keyed by its path relative to the folder."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        for name in sorted(files_below(folder))
    }


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
    found = find_json(path)
    if found is None:
        raise UserError(f"{path} does not exist.")
    return found


def find_json(path: Location) -> dict[str, Any] | None:
    """Read a JSON object, or return None if there is no such file; errors as in `read_json`."""
    try:
        if isinstance(path, S3Path):
            content = path.read_range(0, MAX_BYTES + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        value = parse_json(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, JsonError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}, expected an object.")
    return value

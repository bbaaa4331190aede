"""The one door to files and objects: names, hashes, and writes that exist whole or not at all.

On a disk everything is written under a hidden name beside its target and renamed into place once it is complete. On an
object store an object is whole by itself, and a folder is complete with its manifest, which is uploaded last. So a
reader never meets half of anything (promise 6 of docs/architecture.md).
"""

import contextlib
import errno
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vadv_dist.errors import MachineError, UserError, VadvError
from vadv_dist.formats.json_text import MAX_BYTES, JsonError, parse_json
from vadv_dist.storage.objects import Location, S3Path

_NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
# A file where a folder should be or the other way round, a name too long, a circle of links.
_NO_SUCH_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def location(uri: str | Path | S3Path) -> Location:
    """Turn a URI into a place on this machine or in an object store.

    Raises:
        UserError: the URI names another kind of storage.
    """
    if isinstance(uri, S3Path):
        return uri
    text = str(uri)
    if text.startswith("s3:/"):
        return S3Path.parse(text if text.startswith("s3://") else text.replace("s3:/", "s3://", 1))  # as a Path has it
    return local_path(text)


def local_path(uri: str | Path) -> Path:
    """Turn a URI into a path on this machine.

    Raises:
        UserError: the URI names an object store or another kind of storage.
    """
    text = str(uri)
    if text.startswith("file://"):
        return Path(text[len("file://") :])
    if "://" in text:
        scheme = text.split("://", 1)[0]
        place = "a path is needed here" if scheme == "s3" else "only paths and s3:// are known"
        raise UserError(f"{text} is on {scheme}://, but {place}.")
    return Path(text)


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


def file_size(path: Location) -> int:
    """Bytes of a file.

    Raises:
        FileNotFoundError: there is none.
    """
    return path.size() if isinstance(path, S3Path) else path.stat().st_size


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


def write_json(path: Location, value: object) -> None:
    """Write a JSON document whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Location, text: str) -> None:
    """Write a text file whole or not at all."""
    if isinstance(path, S3Path):
        path.write_bytes(text.encode())
        return
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def disk_faults(target: Location, safe: str) -> Iterator[None]:
    """Turn a full or failing disk into one message that says what is safe."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                f"No space left on the disk that holds {target}. Nothing half-written was left there; {safe} "
                "Free some space and run the same command again."
            ) from error
        if error.errno in (*_NO_PERMISSION, *_NO_SUCH_PLACE):
            raise UserError(
                f"{target} cannot be written: {error.strerror}. Give a folder that you may write to."
            ) from error
        if error.errno in (errno.EIO, errno.ESTALE):
            raise MachineError(f"The disk that holds {target} failed: {error.strerror}. {safe}") from error
        raise


def _partial(path: Path) -> Path:
    """A hidden name beside a path that no other writer has: process ids repeat between machines and containers."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def atomic_file(path: Location, safe: str = "earlier files are as they were.") -> Iterator[Path]:
    """Yield a path to write to; on success what was written there appears under `path`, whole.

    It is a hidden path beside `path`, flushed to the disk and renamed; or a file of this machine that is then uploaded.
    """
    if isinstance(path, S3Path):
        with scratch_folder() as folder:
            yield folder / path.name
            path.upload(folder / path.name)
        return
    partial = _partial(path)
    with disk_faults(path, safe):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
            _flush_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


class Upload:
    """Files of a new folder on their way to where it will stand."""

    def __init__(self, folder: Path, target: Location) -> None:
        self.folder = folder
        self._target = target

    def send(self, name: str) -> None:
        """Let go of a file that is complete, so that a folder may be larger than this machine's disk."""
        if isinstance(self._target, S3Path):
            (self._target / name).upload(self.folder / name)
            (self.folder / name).unlink()


@contextmanager
def atomic_directory(
    path: Location, *, manifest: str, safe: str = "earlier files are as they were."
) -> Iterator[Upload]:
    """Yield a new folder to write in; on success it appears as `path`, on any failure nothing does.

    On a disk it is a hidden folder beside `path`, renamed at the end; `path` must not exist, or be an empty folder. On
    an object store its files are uploaded, `manifest` last: whoever reads such a folder looks for that first.
    """
    if isinstance(path, S3Path):
        with scratch_folder() as folder:
            upload = Upload(folder, path)
            yield upload
            names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
            for name in sorted(names, key=lambda name: name == manifest):
                upload.send(name)
        return
    partial = _partial(path)
    with disk_faults(path, safe):
        try:
            partial.mkdir(parents=True)
            yield Upload(partial, path)
            readable = partial.stat().st_mode & 0o666  # as this user's new files are; safetensors makes private ones
            for inner, _, names in os.walk(partial):
                for name in names:
                    with open(os.path.join(inner, name), "rb") as file:
                        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o7777 | readable)
                        os.fsync(file.fileno())
                _flush_folder(Path(inner))
            if path.is_dir():
                path.rmdir()
            os.replace(partial, path)
            _flush_folder(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Location, names: Iterable[str]) -> None:
    """Remove what killed writers of these files and folders left half-written; call it while nobody writes them.

    An object store has no such thing.
    """
    if isinstance(folder, S3Path):
        return
    for name in names:
        for left in folder.glob(f".{glob.escape(name)}.partial-*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder of this machine that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vadv-") as folder, disk_faults(Path(folder), "nothing was changed."):
        yield Path(folder)


@contextmanager
def local_copy(path: Location, names: Sequence[str] | None = None) -> Iterator[Path]:
    """Yield a path of this machine that holds what stands at `path`: itself, or a copy that is removed afterwards.

    Args:
        path: a file or a folder.
        names: of a folder, the files to copy; those that do not exist are left out. None: everything below it.
    Raises:
        FileNotFoundError: there is nothing.
    """
    if not isinstance(path, S3Path):
        yield path
        return
    with scratch_folder() as folder:
        copy = folder / (path.name or path.bucket)
        _download(path, copy, names)
        try:
            yield copy
        except VadvError as error:
            raise type(error)(str(error).replace(str(copy), str(path))) from error


def _download(path: S3Path, copy: Path, names: Sequence[str] | None) -> None:
    files = [path / name for name in names] if names is not None else path.files()
    if names is None and not files:
        path.download(copy)
        return
    copy.mkdir()
    for file in files:
        target = copy / str(file)[len(str(path)) + 1 :]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.download(target)
        except FileNotFoundError:
            target.unlink(missing_ok=True)


def remove_tree(path: Location) -> None:
    """Remove a folder and what is in it."""
    if isinstance(path, S3Path):
        path.remove_tree()
    else:
        shutil.rmtree(path)


def require_absent(path: Location, what: str, advice: str, *, manifest: str | None = None) -> None:
    """Refuse to write over something that exists.

    Args:
        path: where it would be written.
        what: what it is, for the message.
        advice: what to do, for the message.
        manifest: in an object store, the file that makes a folder complete: without it what lies there are remains of
            a write that was interrupted, and they are written over.
    Raises:
        UserError: `path` is a file, or a folder that is not empty.
    """
    if isinstance(path, S3Path):
        taken = path.is_file() or ((path / manifest).is_file() if manifest else path.is_dir())
    else:
        taken = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if taken:
        raise UserError(f"{path} exists already and {what} is never written over. {advice}")


def file_entries(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return size and SHA-256 of every file below a folder, keyed by its path relative to the folder."""
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _flush_folder(folder: Path) -> None:
    """Make a rename in a folder outlast a loss of power, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

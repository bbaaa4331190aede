"""The one door to files: names, hashes, and writes that exist whole or not at all.

Everything is written under a hidden name beside its target and renamed into place once it is complete, so that a
reader never meets half of it (promise 6 of docs/architecture.md).
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vadv_dist.errors import MachineError, UserError

_NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
# A file where a folder should be or the other way round, a name too long, a circle of links.
_NO_SUCH_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def local_path(uri: str | Path) -> Path:
    """Turn a URI into a path on this machine.

    Raises:
        UserError: the URI names an object store, which this version does not read yet.
    """
    text = str(uri)
    if text.startswith("file://"):
        return Path(text[len("file://") :])
    if "://" in text:
        scheme = text.split("://", 1)[0]
        raise UserError(f"{text} is on {scheme}://, but this version reads and writes local paths only. Give a path.")
    return Path(text)


def sha256_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of a buffer, in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing, is not JSON, or holds something other than an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}, expected an object.")
    return value


def write_json(path: Path, value: object) -> None:
    """Write a JSON document whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def disk_faults(target: Path, safe: str) -> Iterator[None]:
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


@contextmanager
def atomic_file(path: Path, safe: str = "earlier files are as they were.") -> Iterator[Path]:
    """Yield a hidden path beside `path`; on success flush it to the disk and rename it into place."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with disk_faults(path, safe):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, safe: str = "earlier files are as they were.") -> Iterator[Path]:
    """Yield a new hidden folder beside `path`; on success rename it to `path`, on any failure remove it.

    `path` must not exist, or be an empty folder.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with disk_faults(path, safe):
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for folder, _, names in os.walk(partial):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        os.fsync(file.fileno())
            if path.is_dir():
                path.rmdir()
            os.replace(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def require_absent(path: Path, what: str, advice: str) -> None:
    """Refuse to write over something that exists.

    Raises:
        UserError: `path` is a file, or a folder that is not empty.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise UserError(f"{path} exists already and {what} is never written over. {advice}")


def file_entries(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return size and SHA-256 of every file below a folder, keyed by its path relative to the folder."""
    return {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

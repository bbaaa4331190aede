"""Writing files that exist whole or not at all (promise 6 of docs/architecture.md).

On a disk a file is written under a hidden name beside its target and renamed once it is complete; in an object store an
object is whole by itself.
"""

import contextlib
import errno
import glob
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vadv_dist.errors import MachineError, UserError
from vadv_dist.storage.objects import Location, S3Path

_NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
# A file where a folder should be or the other way round, a name too long, a circle of links.
_NO_SUCH_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


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
                f"No space left on the disk that holds {target}. No partial file was left there; {safe} "
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
def atomic_file(path: Location, safe: str = "earlier files are as they were.") -> Iterator[Path]:
    """Yield a path to write to; on success what was written there appears under `path`, whole.

    It is a hidden path beside `path`, flushed to the disk and renamed; or a file of this machine that is then uploaded.
    """
    if isinstance(path, S3Path):
        with scratch_folder() as folder:
            yield folder / path.name
            path.upload(folder / path.name)
        return
    partial = hidden_partial(path)
    with disk_faults(path, safe):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
            flush_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def sweep(folder: Location, names: Iterable[str] | None = None) -> None:
    """Remove what killed writers left half-written in a folder; call it while nobody writes there.

    An object store has no such thing.

    Args:
        folder: the folder.
        names: files and folders right below it; None: everything below it, however deep.
    """
    if isinstance(folder, S3Path):
        return
    patterns = ["**/.*.partial-*"] if names is None else [f".{glob.escape(name)}.partial-*" for name in names]
    for left in [found for pattern in patterns for found in folder.glob(pattern)]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder of this machine that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="vadv-") as folder, disk_faults(Path(folder), "nothing was changed."):
        yield Path(folder)


def hidden_partial(path: Path) -> Path:
    """A hidden name beside a path that no other writer has: process ids repeat between machines and containers."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")


def flush_folder(folder: Path) -> None:
    """Make a rename in a folder outlast a loss of power, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

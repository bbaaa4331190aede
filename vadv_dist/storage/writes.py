"""Write files and folders that exist whole or not at all (promise 6 of docs/architecture.md), and remove them.

On a disk a file or folder is written under a hidden name beside its target and renamed once it is complete.
"""

import contextlib
import errno
import glob
import json
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from vadv_dist.errors import ExistsError, StorageError, UserError, VadvError
from vadv_dist.storage.object_client import ConflictError
from vadv_dist.storage.objects import Location, S3Path
from vadv_dist.storage.scratch import locked_folder

logger = logging.getLogger(__name__)

# What a failed write says of earlier files.
_UNCHANGED = "earlier files are unchanged."
# No permission; a file instead of a folder or vice versa; a name too long; a loop of links.
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}


def write_json(path: Location, value: object) -> None:
    """Write a JSON document whole or not at all."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """A JSON document as this package writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Location, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_new(path: Location, text: str) -> bool:
    """Write a text file unless one of that name exists; of several writers exactly one succeeds.

    Args:
        path: the file.
        text: its content, which no other writer may write.
    Returns:
        whether this call wrote it.
    """
    if isinstance(path, S3Path):
        try:
            path.write_bytes(text.encode(), if_absent=True)
        except ConflictError:
            # If the answer to a successful write is lost, the next attempt finds what this process wrote.
            return path.read_bytes() == text.encode()
        return True
    partial = _hidden_partial(path)
    with disk_faults(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, path)
            flush_folder(path.parent)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
    return True


@contextmanager
def disk_faults(target: Location, safe: str = _UNCHANGED) -> Iterator[None]:
    """Turn errors of a full or failing disk into one message that says what is saved."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"No space left on the disk that holds {target}. No partial file was left there; {safe} "
                "Free some space and run the same command again."
            ) from error
        if error.errno in _REFUSED:
            raise UserError(
                f"{target} cannot be written: {error.strerror}. Give a folder that you may write to."
            ) from error
        if error.errno in (errno.EIO, errno.ESTALE):
            raise StorageError(f"The disk that holds {target} failed: {error.strerror}. {safe}") from error
        raise


@contextmanager
def atomic_file(path: Location, safe: str = _UNCHANGED) -> Iterator[Path]:
    """Yield a temporary path to write to; if no error is raised, the file is renamed or uploaded to `path`.

    Args:
        path: the file.
        safe: what an error message says of earlier files.
    """
    if isinstance(path, S3Path):
        with scratch_folder() as folder:
            yield folder / path.name
            path.upload(folder / path.name)
        return
    partial = _hidden_partial(path)
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


class Upload:
    """A new folder that is being written.

    Attributes:
        folder: where its files are written on this machine.
    """

    def __init__(self, folder: Path, target: Location) -> None:
        self.folder = folder
        self._target = target

    def send(self, name: str) -> None:
        """Upload a complete file to an object store and remove it here: a folder may be larger than this disk."""
        if isinstance(self._target, S3Path):
            (self._target / name).upload(self.folder / name)
            (self.folder / name).unlink()


@contextmanager
def atomic_directory(path: Location, *, manifest: str, safe: str = _UNCHANGED) -> Iterator[Upload]:
    """Yield a new folder to write in, which becomes `path` if no error is raised.

    On a disk it is a hidden folder beside `path`, renamed at the end; `path` must not exist or must be empty. In an
    object store `manifest` is uploaded last, and a folder without its manifest is incomplete.
    """
    if isinstance(path, S3Path):
        with scratch_folder() as folder:
            upload = Upload(folder, path)
            yield upload
            names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
            for name in sorted(names, key=lambda name: (name == manifest, name)):
                upload.send(name)
        return
    partial = _hidden_partial(path)
    with disk_faults(path, safe):
        try:
            partial.mkdir(parents=True)
            yield Upload(partial, path)
            readable = partial.stat().st_mode & 0o666  # as for this user's new files; safetensors writes private ones
            for inner, _, names in os.walk(partial):
                for name in names:
                    with open(os.path.join(inner, name), "rb") as file:
                        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o7777 | readable)
                        os.fsync(file.fileno())
                flush_folder(Path(inner))
            if path.is_dir():
                path.rmdir()
            os.replace(partial, path)
            flush_folder(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class JointDirectory:
    """A new folder that several processes write together; it appears whole when one of them publishes it.

    On a disk its files are collected in a hidden folder beside it, which is then renamed. In an object store they are
    written where they belong, and the folder is incomplete until its manifest is there. What a process of an earlier
    attempt still writes must not replace them, so their names differ (`own_name`); the manifest has to list them.

    Args:
        path: the folder; publishing it replaces an earlier one.
        token: the same for all its writers, and for no other attempt to write it.
        safe: what an error message says of earlier files.
    """

    def __init__(self, path: Location, token: str, safe: str = _UNCHANGED) -> None:
        self._path, self._token, self._safe = path, token, safe
        self._folder = path if isinstance(path, S3Path) else self._hidden("partial")

    def __truediv__(self, name: str) -> Location:
        return self._folder / name

    def own_name(self, name: str) -> str:
        """The name of a file that no other attempt writes: in an object store, with the token before its extension."""
        stem, _, extension = name.rpartition(".")
        return f"{stem}.{self._token}.{extension}" if isinstance(self._path, S3Path) else name

    def file(self, name: str) -> AbstractContextManager[Path]:
        """`atomic_file` for one of its files."""
        return atomic_file(self._folder / name, self._safe)

    def publish(self, manifest: str, value: object) -> None:
        """Write the manifest as JSON and make the folder appear; all its other files must be complete."""
        with self.file(manifest) as partial:
            partial.write_text(json_text(value), encoding="utf-8")
        if isinstance(self._folder, S3Path) or isinstance(self._path, S3Path):
            return
        with disk_faults(self._path, self._safe):
            earlier = self._hidden("partial-earlier")
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._path, earlier)
            os.replace(self._folder, self._path)
            flush_folder(self._path.parent)
            shutil.rmtree(earlier, ignore_errors=True)

    def discard(self) -> None:
        """Remove the hidden folder of an attempt that failed; in an object store its files stay, without a manifest."""
        if isinstance(self._folder, Path):
            shutil.rmtree(self._folder, ignore_errors=True)

    def remove_replaced(self) -> None:
        """Remove this attempt's files from an object store, once another one is published; on a disk none are left."""
        if isinstance(self._path, S3Path):
            self._path.remove_files([file for file in self._path.files() if f".{self._token}." in file.name])

    def _hidden(self, what: str) -> Path:
        assert isinstance(self._path, Path)
        return self._path.with_name(f".{self._path.name}.{what}-{self._token}")


def require_absent(path: Location, what: str, advice: str, *, manifest: str) -> None:
    """Refuse to write a folder over something that exists.

    Args:
        path: the folder to be written.
        what: what it is, for the message.
        advice: what to do, for the message.
        manifest: in an object store, a folder without this file is left from an interrupted write and is overwritten.
    Raises:
        UserError: `path` is a file.
        ExistsError: `path` is a folder that is not empty.
    """
    if path.is_file():
        raise UserError(f"{path} is a file, and {what} is a folder. Choose another place.")
    taken = (path / manifest).is_file() if isinstance(path, S3Path) else path.is_dir() and any(path.iterdir())
    if taken:
        raise ExistsError(f"{path} already exists, and {what} is not overwritten. {advice}")


def remove_tree(path: Location) -> None:
    """Remove a folder and its contents."""
    if isinstance(path, S3Path):
        path.remove_files(path.files())
    else:
        shutil.rmtree(path)


def clear(folder: Location, *, first: str, keep: Collection[str]) -> None:
    """Remove everything in a folder, one file before all others, except some files and folders directly below it."""
    (folder / first).unlink(missing_ok=True)
    if isinstance(folder, S3Path):
        start = len(folder.key) + 1
        folder.remove_files([file for file in folder.files() if file.key[start:].partition("/")[0] not in keep])
        return
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def discard(folder: Location, *, last: str, held: str) -> None:
    """Remove a folder that is no longer needed, as far as possible.

    Args:
        folder: the folder; the caller holds the lock `held` in it.
        last: name of the file to remove last.
        held: name of the lock; in an object store it is left to its holder.
    """
    try:
        if isinstance(folder, S3Path):
            folder.remove_files([file for file in folder.files() if file.name not in (last, held)])
            (folder / last).unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
    except VadvError as error:
        logger.warning("%s is no longer needed, but could not be removed: %s", folder, error)


def sweep(folder: Location, names: Iterable[str] | None = None, *, deep: bool = True) -> None:
    """Remove incomplete files that killed writers left in a folder on a disk; nobody may be writing there.

    Args:
        folder: the folder.
        names: files and folders directly below it; None means everything below it.
        deep: without names, whether to look into its folders, too.
    """
    if isinstance(folder, S3Path):
        return
    every = "**/.*.partial-*" if deep else ".*.partial-*"
    patterns = [every] if names is None else [f".{glob.escape(name)}.partial-*" for name in names]
    for left in [found for pattern in patterns for found in folder.glob(pattern)]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder on this machine that is removed afterwards, or by a later process if this one is killed."""
    with locked_folder() as folder, disk_faults(folder, "nothing was changed."):
        yield folder


def _hidden_partial(path: Path) -> Path:
    """A hidden name beside a path, unique to this writer: process ids repeat between machines and containers."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")


def flush_folder(folder: Path) -> None:
    """Make a rename in a folder survive a loss of power, if the file system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

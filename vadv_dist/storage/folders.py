"""Folders of files: published whole by a manifest, copied to this machine, removed.

On a disk a new folder is written under a hidden name and renamed once it is complete. In an object store a folder is
complete with its manifest, which is uploaded last: whoever reads such a folder looks for that first.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vadv_dist.errors import UserError, VadvError
from vadv_dist.storage.objects import Location, S3Path
from vadv_dist.storage.reads import files_below, sha256_file
from vadv_dist.storage.writes import disk_faults, flush_folder, hidden_partial, scratch_folder

logger = logging.getLogger(__name__)


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
            for name in sorted(files_below(folder), key=lambda name: (name == manifest, name)):
                upload.send(name)
        return
    partial = hidden_partial(path)
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
                flush_folder(Path(inner))
            if path.is_dir():
                path.rmdir()
            os.replace(partial, path)
            flush_folder(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


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
            error.copies[str(copy)] = str(path)
            raise


def _download(path: S3Path, copy: Path, names: Sequence[str] | None) -> None:
    found = list(files_below(path)) if names is None else names
    if names is None and not found:
        path.download(copy)
        return
    copy.mkdir()
    for name in found:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            (path / name).download(target)
        except FileNotFoundError:
            target.unlink(missing_ok=True)


def remove_tree(path: Location) -> None:
    """Remove a folder and what is in it."""
    if isinstance(path, S3Path):
        path.remove_tree()
    else:
        shutil.rmtree(path)


def discard(folder: Location, *, last: str, held: str) -> None:
    """Remove a folder that is no longer needed; what cannot be removed is left.

    Args:
        folder: the folder; the caller holds the lock `held` in it.
        last: name of the file that describes the others; it is removed after them.
        held: name of the lock; in an object store its holder removes it.
    """
    try:
        if isinstance(folder, S3Path):
            folder.remove_files([file for file in folder.files() if file.name not in (last, held)])
            (folder / last).unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
    except VadvError as error:
        logger.warning("%s is no longer needed, but could not be removed: %s", folder, error)


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
        raise UserError(f"{path} already exists, and {what} is never overwritten. {advice}")


def file_entries(folder: Path) -> dict[str, dict[str, int | str]]:
    """Return size and SHA-256 of every file below a folder, keyed by its path relative to the folder."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        for name in sorted(files_below(folder))
    }

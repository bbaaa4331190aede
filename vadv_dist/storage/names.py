"""Names of places: a URI becomes a path of this machine or a place in an object store, and names are joined."""

import posixpath
from pathlib import Path

from vadv_dist.errors import UserError
from vadv_dist.storage.objects import Location, S3Path


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


def on_disk(place: Location) -> Path | None:
    """The path of a place on this machine, for a library that opens files by name; None in an object store."""
    return place if isinstance(place, Path) else None


def join(root: Location, path: str) -> Location:
    """Return the place that `path` names in the folder `root`.

    Args:
        root: folder that relative paths start from; they may leave it by `..`, in an object store as on a disk.
        path: relative, absolute on this machine, or a URI.
    Raises:
        UserError: the URI names another kind of storage.
    """
    if "://" in path:
        return location(path)
    if isinstance(root, Path) or path.startswith("/"):
        return Path(root / path) if isinstance(root, Path) else Path(path)
    return S3Path(root.bucket, posixpath.normpath(f"/{root.key}/{path}").lstrip("/"))


def same_place(one: Location, other: Location) -> bool:
    """Whether two names mean the same file; on a disk links are followed."""
    if isinstance(one, Path) and isinstance(other, Path) and one.exists() and other.exists():
        return one.samefile(other)
    return one == other

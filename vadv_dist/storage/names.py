"""URIs to paths or object locations, and joining names."""

import posixpath
from pathlib import Path

from vadv_dist.errors import UserError
from vadv_dist.storage.objects import Location, S3Path


def location(uri: str | Path | S3Path) -> Location:
    """Turn a URI into a path or a location in an object store.

    Raises:
        UserError: the URI names another kind of storage.
    """
    if isinstance(uri, S3Path):
        return uri
    text = str(uri)
    if text.startswith("s3:/"):
        return S3Path.parse(text if text.startswith("s3://") else text.replace("s3:/", "s3://", 1))  # from a Path
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
        place = "a path is needed here" if scheme == "s3" else "only paths and s3:// are supported"
        raise UserError(f"{text} is on {scheme}://, but {place}.")
    return Path(text)


def on_disk(place: Location) -> Path | None:
    """The path of a file on this machine, for a library that opens files by name; None in an object store."""
    return place if isinstance(place, Path) else None


def join(root: Location, path: str) -> Location:
    """Resolve a path relative to the folder `root`.

    Args:
        root: folder that relative paths start from; they may leave it with `..`.
        path: relative, absolute on this machine, or a URI.
    Raises:
        UserError: the URI names another kind of storage.
    """
    if "://" in path:
        return location(path)
    if isinstance(root, Path):
        return root / path
    if path.startswith("/"):
        return Path(path)
    return S3Path(root.bucket, posixpath.normpath(f"/{root.key}/{path}").lstrip("/"))

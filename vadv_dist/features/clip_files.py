"""Open and hash files on any storage; all access to clips goes through here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from vadv_dist.features.timeline import BadClipError
from vadv_dist.storage import ConflictError, FileContent, Location, content_of, file_size, location, sha256_file


def open_clip(uri: str) -> IO[bytes]:
    """Open a clip's file for reading.

    Raises:
        BadClipError: there is no such file, it is empty, or it cannot be read.
        UserError: there is no such bucket, or the object store denies access, which is not the clip's fault.
        MachineError: the object store does not respond, or the disk for copies is full.
    """
    with _content(uri) as content:
        return content.open()


def open_hashed(uri: str) -> tuple[IO[bytes], int, str]:
    """Open a clip's file and return its size and SHA-256; a file that contains many clips is hashed once.

    Raises:
        BadClipError, UserError, MachineError: as in `open_clip`.
    """
    with _content(uri) as content:
        digest = content.sha256
        return content.open(), content.size, digest


def file_entry(file: Location) -> dict[str, Any]:
    """The entry of a file in a data set's records: name, size and SHA-256."""
    return {"name": file.name, "bytes": file_size(file), "sha256": sha256_file(file)}


@contextmanager
def _content(uri: str) -> Iterator[FileContent]:
    """The content of a clip's file; a problem with it becomes the reason for the clip's rejection."""
    try:
        content = content_of(location(uri))
        if content.size == 0:
            raise BadClipError("empty file")
        yield content
    except FileNotFoundError:
        raise BadClipError("missing file") from None
    except ConflictError:
        raise BadClipError("unreadable: it was changed while it was being read") from None
    except (OSError, ValueError) as error:
        raise BadClipError(f"unreadable: {getattr(error, 'strerror', None) or error}") from None

"""Open and hash the files of clips on any storage; all access to clips goes through here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from vadv_dist.features.timeline import BadClipError
from vadv_dist.storage import ConflictError, FileContent, content_of, location


def open_clip(uri: str) -> IO[bytes]:
    """Open a clip's file for reading.

    Raises:
        BadClipError: there is no such file, it is empty, or it cannot be read.
        UserError: there is no such bucket, or the object store denies access, which is not the clip's fault.
        MachineError: the object store does not respond, or the disk for copies is full.
    """
    with _bad_clips():
        return _content(uri).open()


def open_hashed(uri: str) -> tuple[IO[bytes], int, str]:
    """Open a clip's file and return its size and SHA-256; a file that contains many clips is hashed once.

    Raises:
        BadClipError, UserError, MachineError: as in `open_clip`.
    """
    with _bad_clips():
        content = _content(uri)
        digest = content.sha256
        return content.open(), content.size, digest


def _content(uri: str) -> FileContent:
    content = content_of(location(uri), safe="Complete shards are safe.")
    if content.size == 0:
        raise BadClipError("empty file")
    return content


@contextmanager
def _bad_clips() -> Iterator[None]:
    """Turn a problem with a clip's file into the reason for its rejection."""
    try:
        yield
    except FileNotFoundError:
        raise BadClipError("missing file") from None
    except ConflictError:
        raise BadClipError("unreadable: it was changed while it was being read") from None
    except (OSError, ValueError) as error:
        raise BadClipError(f"unreadable: {getattr(error, 'strerror', None) or error}") from None

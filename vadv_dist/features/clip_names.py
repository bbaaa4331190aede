"""The names under which another program's output for a clip may stand, none of which could mean another clip."""

import posixpath
from collections.abc import Sequence
from pathlib import PurePosixPath


def own_names(clips: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """For each clip, as (id, path), its id, then the ends of its path without suffix, the longest first.

    A name is left out where it also is that of another file: `1` means nothing where there are `p/1.mp4` and `q/1.mp4`,
    `p/1` and `q/1` do.
    """
    tails = [path_tails(path) for _, path in clips]
    owners: dict[str, set[str]] = {}
    for (clip_id, path), names in zip(clips, tails, strict=True):
        file = posixpath.normpath(path)
        for name in (clip_id, *names):
            owners.setdefault(name, set()).add(file)
    return [
        tuple(dict.fromkeys(name for name in (clip_id, *names) if len(owners[name]) == 1))
        for (clip_id, _), names in zip(clips, tails, strict=True)
    ]


def path_tails(path: str) -> tuple[str, ...]:
    """`Raw/q/1`, `q/1` and `1` for `Raw/q/1.mp4`."""
    parts = PurePosixPath(posixpath.normpath(path.partition("://")[2] or path)).with_suffix("").parts
    parts = tuple(part for part in parts if part not in ("/", "..", "."))
    return tuple("/".join(parts[start:]) for start in range(len(parts)))

"""The id of a job: readable, and different for jobs that differ in anything."""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vadv_dist

_SLUG_LENGTH, _DIGEST_LENGTH = 40, 12


def job_slug(command: str, name: str) -> str:
    """The readable part of an id, in ASCII; different names may share it."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", plain)[:_SLUG_LENGTH].strip("-.")
    return f"vadv-{command}-{words}" if words else f"vadv-{command}"


def job_id(slug: str, facts: Mapping[str, Any]) -> str:
    """The slug, and a digest of everything that determines what the job does.

    Args:
        slug: see `job_slug`.
        facts: plain containers.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=str)
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]}"


def shares_slug(submission_id: str, slug: str) -> bool:
    """Whether an id belongs to a job with this slug, also if an earlier version submitted it."""
    return re.fullmatch(rf"{re.escape(slug)}(-[0-9a-f]{{{_DIGEST_LENGTH}}})?(-\d+)?", submission_id) is not None


def folder_digest(folder: Path, pattern: str = "*") -> str:
    """SHA-256 over names, modes and contents of the files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(os.fsencode(path.relative_to(folder)))
            digest.update(f"\0{path.stat().st_mode & 0o111:o}\0{content}\n".encode())
    return digest.hexdigest()


def code_digest() -> str:
    """SHA-256 over the sources of this package, which a job on this machine runs."""
    return folder_digest(Path(vadv_dist.__file__).parent, "*.py")

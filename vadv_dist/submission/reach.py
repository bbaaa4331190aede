"""What a job can reach: locations outside its folder, and the files that are uploaded with it."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.errors import UserError
from vadv_dist.storage import location
from vadv_dist.submission.address import is_this_machine


@dataclass(frozen=True)
class Reach:
    """Turns a location into one that the job can reach; relative ones start from the uploaded folder."""

    folder: Path
    address: str

    def __call__(self, uri: str, what: str) -> str:
        place = location(uri)
        if place.is_absolute():
            return str(place)
        if is_this_machine(self.address):
            return str((self.folder / str(place)).resolve())
        raise UserError(
            f"{what} is {place}, a path relative to the job's folder, which is a copy that is deleted when the job "
            "ends. Use s3://… or an absolute path on a disk that all nodes see."
        )


def require_tracked(path: str, tracked: Collection[str]) -> None:
    """Refuse a relative path that is not among the uploaded files.

    Raises:
        UserError: it would not be uploaded with the job.
    """
    if not os.path.isabs(path) and os.path.normpath(path) not in tracked:
        raise UserError(
            f"{path} would not be uploaded with the job, which includes only files tracked by git, or those of "
            f"--files. Run `git add {path}`, or add it to --files."
        )

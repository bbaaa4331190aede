"""The folder that is uploaded with a job: the files tracked by git, or those that the user lists."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vadv_dist.errors import UserError

MAX_BYTES = 100 << 20
_LARGEST_SHOWN = 3


def uploaded_files(folder: Path, listed: Sequence[str] | None = None) -> list[Path]:
    """Files below a folder that are uploaded with a job, relative to it.

    Args:
        folder: the job's folder.
        listed: files and folders in it; None takes what git tracks.
    Raises:
        UserError: as in `tracked_files`, or a listed one does not exist or is elsewhere.
    """
    if listed is None:
        return tracked_files(folder)
    found: set[Path] = set()
    for name in listed:
        place = (folder / name).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise UserError(f"--files: {name} is not below {folder.resolve()}, the folder of the job (--working-dir).")
        if not place.exists():
            raise UserError(f"--files: {name} does not exist in {folder.resolve()}. Name files and folders there.")
        files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
        found |= {path.relative_to(folder.resolve()) for path in files if "__pycache__" not in path.parts}
    return sorted(found)


def tracked_files(folder: Path) -> list[Path]:
    """Existing files below a folder that git tracks, relative to it.

    Raises:
        UserError: the folder is not in a git repository, or git is not installed.
    """
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise UserError(
            "git is not installed, but it determines the files of a job. Install it, or list them (--files run.yaml)."
        ) from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()
        why = reason[0] if reason else "git failed"
        raise UserError(
            f"{folder.resolve()} is not in a git repository ({why}), but a job uploads the files tracked by git. List "
            "the files (--files run.yaml; the package is that of the cluster's image), start it in a repository, or "
            "set another --working-dir."
        ) from None
    names = [Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name]
    return [name for name in names if (folder / name).is_file()]


def pack(
    folder: Path, target: Path, listed: Sequence[str] | None = None, *, max_bytes: int = MAX_BYTES
) -> tuple[int, int]:
    """Copy the uploaded files of a folder in their current state to an empty one.

    Args:
        folder, listed: as in `uploaded_files`.
        target: the empty folder.
        max_bytes: limit on all files.
    Returns:
        number of files and bytes.
    Raises:
        UserError: there is none, or they are too large to upload with every job.
    """
    files = uploaded_files(folder, listed)
    if not files:
        raise UserError(f"git tracks no file below {folder}. Add the job's files (`git add`), or list them (--files).")
    sizes = {name: (folder / name).stat().st_size for name in files}
    total = sum(sizes.values())
    if total > max_bytes:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:_LARGEST_SHOWN]
        listed = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise UserError(
            f"The files of {folder} for the job are {total / 2**20:.0f} MiB, more than the limit of "
            f"{max_bytes / 2**20:.0f} MiB for uploads. The largest: {listed}. Keep data on s3:// or a shared disk, "
            "not among the job's files."
        )
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / name, target / name)
    return len(files), total

"""The folder that is uploaded with a job: the files tracked by git."""

import os
import shutil
import subprocess
from pathlib import Path

from vadv_dist.errors import UserError

MAX_BYTES = 100 << 20
_LARGEST_SHOWN = 3


def tracked_files(folder: Path) -> list[Path]:
    """Existing files below a folder that git tracks, relative to it.

    Raises:
        UserError: the folder is not in a git repository, or git is not installed.
    """
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached"]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise UserError("git is not installed, but it determines the files of a job. Install it.") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(
            f"{folder} is not in a git repository ({reason[0] if reason else 'git failed'}), but a job uploads the "
            "files tracked by git. Start it in a repository (`git init`, `git add`), or set another --working-dir."
        ) from None
    names = [Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name]
    return [name for name in names if (folder / name).is_file()]


def pack(folder: Path, target: Path, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """Copy the tracked files of a folder in their current state to an empty one.

    Returns:
        number of files and bytes.
    Raises:
        UserError: no file is tracked, or they are too large to upload with every job.
    """
    files = tracked_files(folder)
    if not files:
        raise UserError(f"git tracks no file below {folder}. Add the job's files (`git add`).")
    sizes = {name: (folder / name).stat().st_size for name in files}
    total = sum(sizes.values())
    if total > max_bytes:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:_LARGEST_SHOWN]
        listed = ", ".join(f"{name} ({sizes[name] / 2**20:.1f} MiB)" for name in largest)
        raise UserError(
            f"The tracked files of {folder} are {total / 2**20:.0f} MiB, more than the limit of "
            f"{max_bytes / 2**20:.0f} MiB for uploads. The largest: {listed}. Keep data on s3:// or a shared disk, "
            "not in git."
        )
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / name, target / name)
    return len(files), total

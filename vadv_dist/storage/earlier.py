"""Replace a file or a folder: what was there is put aside until the new one is complete, and put back if it is not."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def earlier_of(path: Path) -> Path:
    """Where what is at a path is kept while its replacement is written."""
    return path.with_name(f".{path.name}.earlier")


@contextmanager
def put_aside(path: Path) -> Iterator[None]:
    """Put a file or folder aside while another one is written to its path.

    If that fails and left nothing at the path, it is put back; if it left something, such as work that another command
    resumes, it stays aside. If the process is killed, it stays aside, too. It is removed by `remove_earlier`.
    """
    remove_earlier(path)
    os.replace(path, earlier_of(path))
    try:
        yield
    except BaseException:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        if not path.exists():
            os.replace(earlier_of(path), path)
        raise


def remove_earlier(path: Path) -> None:
    """Remove what was put aside."""
    earlier = earlier_of(path)
    if earlier.is_dir():
        shutil.rmtree(earlier)
    else:
        earlier.unlink(missing_ok=True)

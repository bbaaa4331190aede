"""Copies on this machine are removed, also those of processes that were killed."""

import fcntl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vadv_dist.storage import scratch, scratch_folder
from vadv_dist.storage.objects import S3Path

COPY = """
import os, sys, time
from vadv_dist.storage.reads import copy_of_folder
print(copy_of_folder(sys.argv[1]), flush=True)
if sys.argv[2:] == ["end"] and sys.stdin.readline():
    os._exit(3)
time.sleep(60)
"""


@pytest.fixture
def place(s3: str, tmp_path: Path) -> str:
    """A folder in the store."""
    root = S3Path.parse(f"{s3}/{tmp_path.name}/encoder")
    (root / "config.json").write_bytes(b"{}")
    return str(root)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for temporary files, also of other processes; this process has removed nothing there yet."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    scratch._remove_abandoned.cache_clear()
    yield tmp_path
    monkeypatch.undo()


def copied(place: str, *how: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that has made a copy, and the copy."""
    process = subprocess.Popen(
        [sys.executable, "-c", COPY, place, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    copy = Path(process.stdout.readline().strip())
    assert (copy / "config.json").is_file()
    return process, copy


def test_copies_of_killed_processes_are_removed_by_the_next_and_no_others(place: str, temporary: Path) -> None:
    killed, left = copied(place)
    ended, also_left = copied(place, "end")
    alive, used = copied(place)
    ended.communicate("now\n")
    assert ended.returncode == 3
    killed.kill()
    killed.communicate()
    unrelated = temporary / "vadv-other"
    unrelated.mkdir()
    assert left.is_dir()
    assert also_left.is_dir()
    with scratch_folder() as folder:
        assert set(temporary.iterdir()) == {folder, used.parent, unrelated}
        assert (used / "config.json").is_file()
    assert set(temporary.iterdir()) == {used.parent, unrelated}
    alive.kill()
    alive.communicate()


def test_a_folder_that_another_process_removes_before_it_is_locked_is_made_again(temporary: Path, monkeypatch) -> None:
    original, made = fcntl.flock, []

    def remove_first(descriptor: int, operation: int) -> None:
        if not made:
            made.extend(temporary.iterdir())
            made[0].rmdir()
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with scratch_folder() as folder:
        assert folder.is_dir()
        assert folder != made[0]
    assert list(temporary.iterdir()) == []


def test_without_locks_a_folder_is_never_taken_for_a_left_one(temporary: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        unlocked = scratch_folder()
        folder = unlocked.__enter__()
    scratch._remove_abandoned.cache_clear()
    with scratch_folder():
        assert folder.is_dir()
    unlocked.__exit__(None, None, None)
    assert list(temporary.iterdir()) == []

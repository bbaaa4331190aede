"""Files of lines that survive a loss of power once they are flushed."""

import errno
import os
from pathlib import Path

import pytest

from vadv_dist.errors import StorageError
from vadv_dist.storage import LineFile


def test_flushed_lines_and_their_file_are_on_the_disk(tmp_path: Path, monkeypatch) -> None:
    path, synced = tmp_path / "lines", []

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", record)
    file = LineFile(path)
    file.flush()
    assert synced == []  # there is nothing to flush
    file.append("one\n")
    file.append("two\n")
    assert synced == []  # a line does not wait for the disk
    file.flush()
    assert (path.stat().st_ino, 8) in synced
    assert tmp_path.stat().st_ino in [inode for inode, _ in synced]


def test_disk_that_fails_while_lines_are_flushed_is_reported(tmp_path: Path, monkeypatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file = LineFile(tmp_path / "lines")
    file.append("one\n")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"lines failed: Input/output error"):
        file.flush()

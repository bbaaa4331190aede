"""The lease of a folder in an object store: renewed through errors, lost, and released."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from vadv_dist.errors import MachineError, StorageError, UserError
from vadv_dist.storage import exclusive, locks
from vadv_dist.storage.objects import S3Path

OTHER = b'{"owner": "another process"}'


@pytest.fixture
def root(s3: str, request: pytest.FixtureRequest) -> S3Path:
    """A separate prefix for each test."""
    return S3Path.parse(f"{s3}/{request.node.name}")


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exit codes with which the thread that renews a lease would have ended this process; it is renewed often."""
    found: list[int] = []
    monkeypatch.setattr(locks, "RENEW_S", 0.05)
    monkeypatch.setattr(os, "_exit", found.append)
    return found


def fail(monkeypatch: pytest.MonkeyPatch, method: str, errors: list[Exception], *, after: bool = False) -> None:
    """Let requests raise the errors of a list, which gets empty; with `after`, once they have taken effect."""
    original: Callable[..., Any] = S3Path._call

    def call(self: S3Path, called: str, **arguments: Any) -> Any:
        if called != method or not errors:
            return original(self, called, **arguments)
        if after:
            original(self, called, **arguments)
        raise errors.pop(0)

    monkeypatch.setattr(S3Path, "_call", call)


def renewals(root: S3Path) -> int:
    count: int = json.loads((root / ".lock").read_bytes())["renewals"]
    return count


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("kind", [UserError, StorageError, RuntimeError])
def test_lease_is_renewed_after_errors_with_one_warning(root, exits, monkeypatch, caplog, kind) -> None:
    errors: list[Exception] = []
    fail(monkeypatch, "put_object", errors)
    with caplog.at_level(logging.WARNING), exclusive(root, ".lock", taken="taken"):
        errors += [kind("the store refuses it")] * 3
        wait_until(lambda: not errors)
        before = renewals(root)
        wait_until(lambda: renewals(root) > before)
    assert len([line for line in caplog.messages if "could not be renewed: the store refuses it" in line]) == 1
    assert exits == []
    assert not (root / ".lock").exists()


def test_lease_is_kept_if_the_answer_to_a_renewal_is_lost(root, exits, monkeypatch) -> None:
    errors: list[Exception] = []
    fail(monkeypatch, "put_object", errors, after=True)
    with exclusive(root, ".lock", taken="taken"):
        errors += [StorageError("no answer")] * 2
        wait_until(lambda: not errors)
        before = renewals(root)
        wait_until(lambda: exits != [] or renewals(root) > before)
    assert exits == []


@pytest.mark.parametrize("change", ["(root / '.lock').write_bytes(b'{}')", "(root / '.lock').unlink()"])
def test_process_ends_once_its_lease_is_lost(root: S3Path, change: str) -> None:
    hold = (
        "import time; from vadv_dist.storage import exclusive, locks; from vadv_dist.storage.objects import S3Path\n"
        f"locks.RENEW_S, root = 0.05, S3Path.parse({str(root)!r})\n"
        f"with exclusive(root, '.lock', taken=''): {change}; time.sleep(20)"
    )
    ended = subprocess.run([sys.executable, "-c", hold], capture_output=True, text=True, check=False)
    assert ended.returncode == MachineError.exit_code
    assert "must not write any more" in ended.stderr


def test_lease_of_a_successor_is_not_removed(root: S3Path, caplog) -> None:
    with exclusive(root, ".lock", taken="taken"):
        (root / ".lock").write_bytes(OTHER)  # while this process was paused for longer than a lease
    assert (root / ".lock").read_bytes() == OTHER
    assert "was removed or taken over" in caplog.text


def test_lease_that_is_gone_is_released_without_an_error(root: S3Path) -> None:
    with exclusive(root, ".lock", taken="taken"):
        (root / ".lock").unlink()
    assert not (root / ".lock").exists()


@pytest.mark.parametrize("method", ["open", "unlink"])
@pytest.mark.parametrize("kind", [UserError, StorageError])
def test_error_in_the_release_does_not_hide_the_result(root, monkeypatch, caplog, kind, method: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise kind("the store refuses it")

    def work() -> None:
        with exclusive(root, ".lock", taken="taken"):
            monkeypatch.setattr(S3Path, method, refuse)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert "could not be removed" in caplog.text

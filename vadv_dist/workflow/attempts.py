"""Attempts at a stage: one process at a time, numbered, and only the latest can complete the stage.

The lock of a stage's folder keeps two living processes apart, but a process that was paused for long can wake up after
another one took its lock over. Therefore attempts have increasing numbers (fencing tokens), and each attempt has one
outcome, a file that only the first writer creates: either the attempt itself completes, fails or stops, or a later
attempt declares it lost. A lost attempt cannot complete any more.
"""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from vadv_dist.errors import MachineError, StoppedError, TakenError
from vadv_dist.reporting.page import FIGURES
from vadv_dist.storage import Location, exclusive, find_json, json_text, read_json, sweep, write_json, write_new
from vadv_dist.workflow.stage import MANIFEST

ATTEMPTS = "attempts"
LOCK = ".lock"
_POLL_S, _SAY_EVERY_S = 2.0, 30.0


class Attempt:
    """One attempt at a stage.

    Args:
        folder: the stage's folder.
        number: its fencing number, from 1.
        token: text that no other process writes.
    """

    def __init__(self, folder: Location, number: int, token: str) -> None:
        self.folder, self.number, self._token = folder, number, token

    def complete(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the stage: write the outcome, then `stage.json`, and return its content.

        Raises:
            MachineError: another process declared this attempt lost.
        """
        document = {**manifest, "attempt": self.number}
        if not self.end("complete", manifest=document):
            raise MachineError(
                f"{self.folder} was taken over by another process while this one was paused, so its result is not "
                "recorded. Run the same command again: it uses the result of the other process."
            )
        write_json(self.folder / MANIFEST, document)
        return document

    def end(self, state: str, **facts: Any) -> bool:
        """Record how the attempt ended, unless its outcome is known; return whether it was recorded."""
        return _end(self.folder, self.number, self._token, state, **facts)


@contextmanager
def next_attempt(folder: Location, say: Callable[[str], None]) -> Iterator[Attempt]:
    """Wait until no other process works on a stage, and yield a new attempt at it.

    What killed attempts left incomplete is removed first. If the last attempt completed but its process was killed
    before it wrote `stage.json`, that is written.

    Args:
        folder: the stage's folder.
        say: called while waiting.
    """
    with ExitStack() as stack:
        _take(folder, stack, say)
        for inner in (folder, folder / ATTEMPTS, folder / FIGURES):
            sweep(inner, deep=False)  # runs do it themselves
        last, token = last_attempt(folder), f"{_process()} {secrets.token_hex(8)}"
        if last and not _end(folder, last, token, "lost"):
            outcome = read_json(_outcome_file(folder, last))
            if outcome["state"] == "complete" and not (folder / MANIFEST).is_file():
                write_json(folder / MANIFEST, outcome["manifest"])
        number = last + 1
        claim = {"process": token, "time": time.time()}
        if not write_new(folder / ATTEMPTS / f"{number:06d}.json", json_text(claim)):
            raise MachineError(f"{folder}: another process started attempt {number} at the same time. Try again.")
        attempt = Attempt(folder, number, token)
        try:
            yield attempt
        except (KeyboardInterrupt, StoppedError):
            attempt.end("stopped")
            raise
        except Exception as error:
            with contextlib.suppress(Exception):  # the error that ended the stage matters more
                attempt.end("failed", error=type(error).__name__, message=str(error))
            raise


def last_attempt(folder: Location) -> int:
    """Number of the last attempt, 0 without any."""
    numbers = [int(path.name.partition(".")[0]) for path in (folder / ATTEMPTS).glob("*.json")]
    return max(numbers, default=0)


def last_outcome(folder: Location) -> dict[str, Any]:
    """How the last attempt ended: `state` is `none`, `open`, `complete`, `failed`, `stopped` or `lost`."""
    last = last_attempt(folder)
    if not last:
        return {"state": "none"}
    return find_json(_outcome_file(folder, last)) or {"state": "open"}


def is_taken(folder: Location) -> bool:
    """Whether a process works on a stage now."""
    try:
        with exclusive(folder, LOCK, taken=""):
            return False
    except TakenError:
        return True


def _take(folder: Location, stack: ExitStack, say: Callable[[str], None]) -> None:
    said = -_SAY_EVERY_S
    while True:
        try:
            stack.enter_context(exclusive(folder, LOCK, taken="", wait_s=_POLL_S))
            return
        except TakenError:
            if time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                holder = find_json(folder / ATTEMPTS / f"{last_attempt(folder):06d}.json") or {}
                say(f"another process works on {folder} ({holder.get('process', 'unknown')}): waiting for it")


def _end(folder: Location, number: int, token: str, state: str, **facts: Any) -> bool:
    document = {"state": state, "by": token, "time": time.time(), **facts}
    return write_new(_outcome_file(folder, number), json_text(document))


def _outcome_file(folder: Location, number: int) -> Location:
    return folder / ATTEMPTS / f"{number:06d}.outcome.json"


def _process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"

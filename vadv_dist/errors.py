"""The ways a command can fail, and what each prints.

A user's mistake ends with exit code 2, a fault of the machine with exit code 1, a stop by SIGTERM with 143; none shows
a traceback.
"""

import difflib
from collections.abc import Iterable


class VadvError(Exception):
    """Ends a command with one message and an exit code."""

    exit_code = 1


class UserError(VadvError):
    """A mistake in what the user gave: says what was wrong, where, what was expected and what to do."""

    exit_code = 2


class MachineError(VadvError):
    """A fault of the machine (disk, memory, a lost worker): says what is lost and what is safe."""

    exit_code = 1


class StoppedError(VadvError):
    """The command was asked to stop by SIGTERM, and has: says what is saved and how to continue."""

    exit_code = 143


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or an empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""

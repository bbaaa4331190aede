"""The errors that end a command, each with one message, an exit code and no traceback.

A user error has exit code 2, a system failure exit code 1, a stop by SIGTERM exit code 143.
"""

import difflib
from collections.abc import Iterable


class VadvError(Exception):
    """Ends a command with one message and an exit code."""

    exit_code = 1


class UserError(VadvError):
    """A mistake in the user's input. The message says what was wrong, where, what was expected and what to do."""

    exit_code = 2


class MachineError(VadvError):
    """A system failure (disk, memory, a lost worker). The message says what is lost and what is saved."""

    exit_code = 1


class StoppedError(VadvError):
    """The command stopped on SIGTERM. The message says what is saved and how to resume."""

    exit_code = 143


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""

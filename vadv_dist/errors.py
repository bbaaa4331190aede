"""The errors that end a command, each with one message, an exit code and no traceback.

A user error has exit code 2, a system failure exit code 1, a stop by SIGTERM exit code 143, and a stop after a notice
that the machine will be taken away, like a job that lost its node, 75: run the same command again.
What a caller must know of an error is its class and its fields; nothing is decided by its text.
"""

import contextlib
import difflib
from collections.abc import Iterable
from pathlib import Path


class VadvError(Exception):
    """Ends a command with one message and an exit code.

    Attributes:
        message: the text shown to the user.
        copies: paths of temporary copies, each with the place that it was copied from, which `str()` names instead.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.copies: dict[str, str] = {}

    def __str__(self) -> str:
        text = self.message
        for copy, place in self.copies.items():
            text = text.replace(copy, place)
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Python's own way calls the class with the message alone, which not every class takes.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[VadvError], arguments: tuple[object, ...], fields: dict[str, object]) -> VadvError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


class UserError(VadvError):
    """A mistake in the user's input. The message says what was wrong, where, what was expected and what to do."""

    exit_code = 2


class ExistsError(UserError):
    """Something is already where a command would write."""


class TakenError(UserError):
    """Another process holds a lock."""


class DivergedError(UserError):
    """The numbers of a run became NaN or infinite."""


class MachineError(VadvError):
    """A system failure (disk, memory, a lost worker). The message says what is lost and what is saved."""

    exit_code = 1


class MemoryFullError(MachineError):
    """The memory of the machine or of a GPU is full."""


class StorageError(MachineError):
    """A disk is full or fails, or an object store does not respond, which others that use it would meet too."""


class RoomError(MachineError):
    """A Ray cluster has been too small for too long. The same command resumes when it has grown."""


class PreemptedError(MachineError):
    """A job lost its node or was asked to stop. The same command submits it again, and it resumes."""

    exit_code = 75


class StoppedError(VadvError):
    """The command stopped on SIGTERM. The message says what is saved and how to resume."""

    exit_code = 143


class NoticedError(StoppedError):
    """The command stopped because its machine will be taken away. The same command should run again."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """First line of a foreign error's text, or its class where it has none: for messages, never for decisions."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def require_memory() -> None:
    """Check that there is memory, before another library's error is taken for a fault of what it reads.

    Many libraries report a lack of memory by errors that also mean other things.

    Raises:
        MemoryFullError: this process cannot get 64 MiB.
    """
    try:
        bytearray(1 << 26)
    except MemoryError:
        raise MemoryFullError("The memory of this machine is full. Free some and run the same command again.") from None


def one_line(error: BaseException, length: int = 200) -> str:
    """A foreign error's text as one line of at most `length` characters, or its class where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[: length - 1]}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def similar_file(path: Path) -> str:
    """Return `` Did you mean 'x'?`` for the file beside a missing one with the closest name, or an empty string."""
    names = []
    with contextlib.suppress(OSError):
        names = [each.name for each in path.parent.iterdir() if each.name != path.name]
    return did_you_mean(path.name, names)

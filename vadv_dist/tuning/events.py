"""What a trial tells: an epoch's validation, its end, or why it failed."""

from dataclasses import dataclass
from typing import Any, Literal

from vadv_dist.errors import UserError

Kind = Literal["out of memory", "no numbers", "refused", "lost", "crash"]


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended, and the trial waits for word whether to go on.

    Args:
        epoch: counted from 0.
        mae: validation MAE of the student, without any weight of the objective.
    """

    epoch: int
    mae: float


@dataclass(frozen=True)
class Ended:
    """The trial ran to its end; `result` is its result.json."""

    result: dict[str, Any]


@dataclass(frozen=True)
class Stopped:
    """The trial was told not to go on, and has let go of everything."""


@dataclass(frozen=True)
class Lost:
    """The process of the trial is gone, for a reason that may be gone as well."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """The trial failed, by itself.

    Args:
        kind: what a person would group failures by.
        message: what happened.
    """

    kind: Kind
    message: str


Event = Epoch | Ended | Stopped | Lost | Failed

# How torch and the allocators say that memory ran out.
_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
# How training/loop.py says that a loss or a metric is NaN or infinite.
_NO_NUMBERS = ("loss became", "are no numbers")


def failure_of(error: BaseException) -> Failed:
    """Tell a failure by the error that ended a trial."""
    text = str(error) or type(error).__name__
    lowered = text.lower()
    if isinstance(error, MemoryError) or any(words in lowered for words in _MEMORY):
        return Failed("out of memory", text)
    if isinstance(error, UserError):
        return Failed("no numbers" if any(words in text for words in _NO_NUMBERS) else "refused", text)
    return Failed("crash", f"{type(error).__name__}: {text}")

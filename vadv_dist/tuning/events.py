"""Events of a trial: an epoch's validation, its end, or a failure."""

import errno
from dataclasses import dataclass
from typing import Literal

from vadv_dist.errors import DivergedError, MemoryFullError, UserError
from vadv_dist.runs.records import RunResult

Kind = Literal["out of memory", "NaN or infinity", "refused", "lost", "crash"]


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended, and the trial waits for the decision whether to continue.

    Args:
        epoch: counted from 0.
        cost: validation score of the student as a number to minimise, without any weight of the objective.
    """

    epoch: int
    cost: float


@dataclass(frozen=True)
class Ended:
    """The trial ran to its end."""

    result: RunResult


@dataclass(frozen=True)
class Stopped:
    """The trial was stopped, and has released its resources."""


@dataclass(frozen=True)
class Lost:
    """The process of the trial was lost, for a reason that may be temporary."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """The trial failed by itself.

    Args:
        kind: category of the failure.
        message: what happened.
    """

    kind: Kind
    message: str


Event = Epoch | Ended | Stopped | Lost | Failed


def failure_of(error: BaseException) -> Failed:
    """Return the failure for the error that ended a trial."""
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError | MemoryFullError) or getattr(error, "errno", None) == errno.ENOMEM:
        return Failed("out of memory", text)
    if isinstance(error, UserError):
        return Failed("NaN or infinity" if isinstance(error, DivergedError) else "refused", text)
    return Failed("crash", f"{type(error).__name__}: {text}")

"""Events of a trial (an epoch's validation, its end, a failure), and what several failures have in common."""

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vadv_dist.errors import (
    DivergedError,
    MachineError,
    MemoryFullError,
    PreemptedError,
    RoomError,
    StorageError,
    UserError,
    VadvError,
)
from vadv_dist.runs.records import RunResult
from vadv_dist.runtime.terminal import counted
from vadv_dist.tuning.space import Values, value_text


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended, and the trial waits for the decision whether to continue.

    Args:
        epoch: counted from 0.
        cost: validation score of the student as a number to minimise, without any weight of the objective.
        metrics: what else the training loop reports.
    """

    epoch: int
    cost: float
    metrics: Mapping[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Ended:
    """The trial ran to its end."""

    result: RunResult


@dataclass(frozen=True)
class Stopped:
    """The trial was stopped, and has released its resources."""


@dataclass(frozen=True)
class Lost:
    """The trial was lost with a process, or with the room for its workers, for a reason that may be temporary.

    Args:
        reason: why.
        counts: whether it counts as one of `trainer.max_failures`.
    """

    reason: str
    counts: bool = True


@dataclass(frozen=True)
class Failed:
    """The trial failed by itself."""

    kind: Literal["out of memory", "NaN or infinity", "refused", "lost", "crash"]
    message: str


@dataclass(frozen=True)
class Blocked:
    """The trial cannot write to its storage, which is not its fault, and other trials would meet it too."""

    message: str


Event = Epoch | Ended | Stopped | Lost | Failed | Blocked


def epoch_of(metrics: Mapping[str, Any]) -> Epoch:
    """The event of an epoch's metrics, as the training loop reports them."""
    return Epoch(int(metrics["epoch"]), float(metrics["cost"]), metrics)


def failure_of(error: BaseException) -> Failed | Blocked | Lost:
    """Return the event for the error that ended a trial."""
    text = str(error) or type(error).__name__
    if isinstance(error, PreemptedError | RoomError):
        return Lost(text, counts=False)
    if isinstance(error, StorageError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return Blocked(text)
    if isinstance(error, MemoryError | MemoryFullError) or getattr(error, "errno", None) == errno.ENOMEM:
        return Failed("out of memory", text)
    if isinstance(error, UserError):
        return Failed("NaN or infinity" if isinstance(error, DivergedError) else "refused", text)
    return Failed("crash", f"{type(error).__name__}: {text}")


def too_many_failures(failed: Sequence[tuple[Values, Failed]], others: Sequence[Values]) -> VadvError:
    """The error that stops a search after consecutive failures.

    Args:
        failed: values and reasons of those failures, the last one last.
        others: values of trials that did not fail.
    """
    kinds = Counter(failure.kind for _, failure in failed).most_common()
    counts = ", ".join(f"{count} × {kind}" for kind, count in kinds)
    shared = _shared_values([values for values, _ in failed], others)
    what = f" They share: {'; '.join(shared)}." if shared else " Their values have nothing in common."
    kind = kinds[0][0]
    advice = {
        "out of memory": "Raise trainer.accumulate, or give each trial more of a GPU (search.gpus_per_trial).",
        "NaN or infinity": "Lower the bounds of learning rates and weights, or set optimizer.clip_norm.",
        "refused": "Fix the config or the space file.",
    }.get(kind, "For details, run one of them alone: `vadv train --config` with its config.yaml.")
    text = (
        f"The search stopped after {counted(len(failed), 'failed trial')} in a row ({counts}).{what} The last error: "
        f"{failed[-1][1].message} {advice} Run the same command again to resume the search."
    )
    return UserError(text) if kind in ("NaN or infinity", "refused") else MachineError(text)


def _shared_values(failed: Sequence[Values], others: Sequence[Values]) -> list[str]:
    """Values, or ranges of numbers, that all failures have and no other trial has."""
    found = []
    for name in failed[0]:
        mine = [values.get(name) for values in failed]
        theirs = [values[name] for values in others if name in values]
        numbers, known = ([v for v in some if isinstance(v, float) or type(v) is int] for some in (mine, theirs))
        if not theirs:
            continue
        if len(numbers) < len(mine) or len(known) < len(theirs):
            if len(set(mine)) == 1 and mine[0] not in theirs:
                found.append(f"{name} is {mine[0]}")
        elif min(numbers) > max(known):
            found.append(f"{name} is at least {value_text(min(numbers))} (at most {value_text(max(known))} elsewhere)")
        elif max(numbers) < min(known):
            found.append(f"{name} is at most {value_text(max(numbers))} (at least {value_text(min(known))} elsewhere)")
    return found

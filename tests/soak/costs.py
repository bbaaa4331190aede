"""What work costs at least: undisturbed, and what a restart must repeat whatever the software does."""

import itertools
import statistics
import time
from dataclasses import dataclass
from typing import Any

from .subjects import CHECKPOINT_STEPS, Subject


@dataclass
class Undisturbed:
    """A subject without faults.

    Attributes:
        outcome, progress: what it leaves, and how far it gets.
        seconds: from the start of the command to its end.
        begin_s: from the start of the command to where the first step begins.
        rejoin_s: the same from where the command has joined its Ray cluster.
        step_s, longest_s: the median and longest time between two steps.
    """

    outcome: dict[str, Any]
    progress: int
    seconds: float
    begin_s: float
    rejoin_s: float
    step_s: float
    longest_s: float

    @classmethod
    def of(cls, subject: Subject, output: str, began: float, joined: float | None, seconds: float) -> "Undisturbed":
        """Read off what a complete run left.

        Args:
            subject: what ran.
            output: of its run.
            began: when its command was started, in seconds since 1970.
            joined: when it had joined its cluster.
            seconds: that it took.
        """
        times = subject.times(output)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        step_s = statistics.median(gaps)
        first = times[0] - step_s
        rejoin_s = 0.0 if joined is None else max(0.0, first - joined)
        outcome = subject.outcome(output)
        return cls(outcome, len(times), seconds, max(0.0, first - began), rejoin_s, step_s, max(gaps))

    def average(self, other: "Undisturbed") -> None:
        """Take the mean of the times of two runs."""
        for name in ("seconds", "begin_s", "rejoin_s", "step_s", "longest_s"):
            setattr(self, name, (getattr(self, name) + getattr(other, name)) / 2)


@dataclass
class Least:
    """What disturbed work costs at least besides what undisturbed work does, as it goes on.

    Attributes:
        starts: seconds that each process lived; it takes at least `begin_s` of them to start.
        rejoins: how often workers on Ray were started again by their command; a part of it if others went on.
        steps: steps that are repeated because of the interval of checkpoints.
        unsaved_s: seconds of work on a unit that is saved only as a whole.
        own_s: seconds that faults themselves took, and in which no work was done.
        own_steps: steps done in such seconds.
    """

    starts: list[float]
    rejoins: float = 0.0
    steps: int = 0
    unsaved_s: float = 0.0
    own_s: float = 0.0
    own_steps: int = 0

    def seconds(self, of: Undisturbed) -> float:
        """All of it; the first process's start is part of undisturbed work."""
        starts = sum(min(lived, of.begin_s) for lived in self.starts) - min(of.begin_s, sum(self.starts))
        unsaved = min(self.unsaved_s, len(self.starts) * of.longest_s)
        own = max(0.0, self.own_s - self.own_steps * of.step_s)
        return max(0.0, starts) + self.rejoins * of.rejoin_s + self.steps * of.step_s + unsaved + own

    def ends(self, subject: Subject, output: str, lived_s: float) -> None:
        """A process ended before its work was complete."""
        if subject.saved is None:
            times = subject.times(output)
            self.unsaved_s += min(lived_s, time.time() - times[-1]) if times else 0.0
        else:
            self.repeats(subject, output)

    def repeats(self, subject: Subject, output: str) -> None:
        """All work stops at this moment, and goes on from what is saved."""
        if subject.saved is not None:
            lost = subject.progress(output) - subject.saved(output)
            self.steps += min(max(0, lost), CHECKPOINT_STEPS * subject.at_once)

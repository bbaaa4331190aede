"""A subject at work: its process, started again and again until it is complete."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from .child import PROCESSES, Inside, run_here
from .costs import Least, Undisturbed
from .subjects import Subject

# Exit codes of a command that was stopped or lost something, and may be started again.
GOES_ON = (1, 75, 143, -signal.SIGKILL)
_PATIENCE_S = 600.0
_POLL_S, _SHARE = 0.01, 10


class SoakError(AssertionError):
    """Something that must not happen."""


@dataclass
class Work:
    """A subject on an output of its own.

    Attributes:
        subject, output: what works, and where to.
        chance: decides what a fault leaves open.
        environment: variables of its processes.
        log: the file with what they print.
        inside: what goes wrong inside every process.
        codes: how its processes ended.
        started: number of processes.
        least: what its faults cost at least.
    """

    subject: Subject
    output: str
    chance: Random
    environment: dict[str, str]
    log: Path
    inside: Inside = field(default_factory=Inside)
    codes: list[int] = field(default_factory=list)
    started: int = 0
    process: Any = None
    least: Least = field(default_factory=lambda: Least([]))
    _since_s: float = 0.0

    def start(self, inside: Inside | None = None) -> None:
        """Start the command, which continues what is there."""
        assert self.process is None
        arguments = self.subject.arguments(self.output)
        self.process = PROCESSES.Process(
            target=run_here, args=(arguments, str(self.log), self.environment, inside or self.inside)
        )
        self._since_s = time.monotonic()
        self.process.start()
        self.started += 1

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not ended."""
        return self.process is not None and self.process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it has not ended."""
        if self.is_running:
            os.kill(self.process.pid, number)

    def wait(self, seconds: float = _PATIENCE_S) -> int:
        """Wait for the process to end; its exit code."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
            self.process = None
            raise SoakError(f"no end after {seconds:.0f} s")
        self.process = None
        lived_s = time.monotonic() - self._since_s
        self.least.starts.append(lived_s)
        if code != 0:
            self.least.ends(self.subject, self.output, lived_s)
        self.codes.append(int(code))
        return int(code)

    def least_so_far(self, of: Undisturbed) -> float:
        """Seconds that its faults have cost at least, with the start of the process that runs."""
        lived = [time.monotonic() - self._since_s] if self.process is not None else []
        return replace(self.least, starts=[*self.least.starts, *lived]).seconds(of)

    def begins_again(self) -> None:
        """What works on Ray is about to be lost; the process starts it again."""
        if self.subject.saved is not None:  # other processes of an extraction go on
            self.least.rejoins += 1 / self.subject.at_once
        self.least.repeats(self.subject, self.output)

    @contextlib.contextmanager
    def taking_time(self) -> Iterator[None]:
        """A block whose time is that of a fault itself, in which work may go on or not."""
        began, before = time.monotonic(), self.subject.progress(self.output)
        try:
            yield
        finally:
            self.least.own_s += time.monotonic() - began
            self.least.own_steps += max(0, self.subject.progress(self.output) - before)

    def wait_for(self, progress: int, *, starts: int = 0) -> bool:
        """Wait until the subject has begun that often and is that far; False if its process ended before."""

        def reached() -> bool:
            return len(self.subject.starts(self.output)) >= starts and self.subject.progress(self.output) >= progress

        until = time.monotonic() + _PATIENCE_S
        while (looked := time.monotonic()) < until:
            if reached():
                return True
            if not self.is_running:
                return reached()
            # Looking takes a processor from the work, so it should be rare if it takes long.
            time.sleep(max(_POLL_S, _SHARE * (time.monotonic() - looked)))
        raise SoakError(f"no progress beyond {self.subject.progress(self.output)} for {_PATIENCE_S:.0f} s")

    def finish(self) -> None:
        """Start it until it is complete.

        Raises:
            SoakError: it is not complete after some starts, or says that its user made a mistake.
        """
        for again in itertools.count():
            if self.process is None:
                self.start()
            code = self.wait()
            if code == 0:
                return
            if code not in GOES_ON or again == 5:
                raise SoakError(f"ended with {code}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line that its processes printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1][:300] if lines else ""

"""Show the progress of an extraction: a bar in a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.console import Console

_LINE_EVERY_S = 15.0


class ExtractProgress:
    """Counts finished clips.

    Args:
        console: shows the progress.
        total: clips of the list.
        done, rejected: clips finished and rejected by earlier runs.
    """

    def __init__(self, console: "Console", total: int, done: int, rejected: int) -> None:
        self._console, self._total, self._done, self._rejected = console, total, done, rejected
        self._before, self._began, self._said = done, time.monotonic(), time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("extracting"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("clips, {task.fields[rate]:.1f}/s, {task.fields[rejected]} rejected,"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=self._total, completed=self._done, rate=0.0, rejected=self._rejected
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, clips: int, rejected: int) -> None:
        """Add finished clips, some of which may be rejected."""
        self._done += clips
        self._rejected += rejected
        now = time.monotonic()
        rate = (self._done - self._before) / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=rate, rejected=self._rejected)
        elif now - self._said >= _LINE_EVERY_S:
            self._said = now
            left = (self._total - self._done) / rate if rate else 0.0
            self._console.print(
                f"{self._done:,} of {self._total:,} clips, {rate:.1f}/s, {self._rejected:,} rejected, "
                f"{left / 60:.0f} min left",
                highlight=False,
                markup=False,
            )

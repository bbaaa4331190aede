"""Progress of a command over many texts: a bar in a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vadv_dist.runtime.terminal import duration

_LINE_EVERY_S = 10.0


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the number of `what` that are done and that of all; it writes to standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn(), TextColumn("left"))
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task, began, before = bar.add_task("", total=None), 0.0, 0
    last_line = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal began, before, last_line
        now = time.monotonic()
        if not began:  # the first report may be of what an earlier command did
            began, before = now, done
        bar.update(task, completed=done, total=total)
        if not console.is_terminal and now - last_line >= _LINE_EVERY_S and done > before:
            last_line, rate = now, (done - before) / (now - began)
            left = duration((total - done) / rate)
            print(f"{done:,} of {total:,} {what}, {rate:,.0f} per s, {left} left", file=sys.stderr, flush=True)

    with bar:
        yield report

"""`vadv watch`: follow a run through its metrics.jsonl, on disk or in an object store."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from vadv_dist.errors import MachineError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Line
from vadv_dist.watching.history import RunHistory
from vadv_dist.watching.progress import MetricsTail, ProgressView
from vadv_dist.watching.watch_view import render, snapshot

# How often result.json is looked for: it is one more request to an object store.
_RESULT_INTERVAL_S = 2.0


def look(run: str) -> dict[str, Any]:
    """Return the state of a run as plain values.

    Raises:
        UserError: there is no such run.
    """
    folder = RunFolder.open(run)
    history = RunHistory()
    MetricsTail(folder.metrics_path, history).poll()
    return snapshot(folder, history)


def watch(run: str, console: Console, *, once: bool = False, sleep: Callable[[float], None] = time.sleep) -> None:
    """Show a run until it is complete: a table that is redrawn on a terminal, elsewhere a table and then plain lines.

    Args:
        run: folder or s3:// prefix of the run.
        console: the output.
        once: print the table once and return.
        sleep: waits between updates.
    Raises:
        UserError: there is no such run.
        MachineError: the run has stopped because its loss became no number.
    """
    folder = RunFolder.open(run)
    history = RunHistory()
    plain: ProgressView | None = None

    def show(line: Line) -> None:
        history(line)
        if plain is not None:
            plain(line)

    tail = MetricsTail(folder.metrics_path, show)
    tail.poll()
    if once:
        console.print(render(snapshot(folder, history), history.task))
        return
    if console.is_terminal:
        from rich.live import Live

        with Live(render(snapshot(folder, history), history.task), console=console, auto_refresh=False) as live:
            while not _ended(folder, history):
                _rest(tail, sleep)
                live.update(render(snapshot(folder, history), history.task), refresh=True)
    else:
        console.print(render(snapshot(folder, history), history.task))
        goes_on = not _ended(folder, history)
        while not _ended(folder, history):
            if plain is None and history.num_steps is not None:
                plain = ProgressView(console, history.num_steps, history.epochs or 0, history.task)
            _rest(tail, sleep)
        if goes_on:
            console.print(render(snapshot(folder, history), history.task))
    if history.fault is not None:
        raise MachineError(
            f"{folder.root} stopped at step {history.fault.step}: {history.fault.what}. Its own messages say "
            "what to do."
        )


def _ended(folder: RunFolder, history: RunHistory) -> bool:
    return history.fault is not None or folder.result_path.is_file()


def _rest(tail: MetricsTail, sleep: Callable[[float], None]) -> None:
    sleep(max(tail.interval_s, _RESULT_INTERVAL_S / 2))
    tail.poll()

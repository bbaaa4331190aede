"""What a person sees of a training run: a bar on a terminal, plain lines elsewhere, both from metrics.jsonl's lines."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.storage import LineReader, Location

_PLAIN_INTERVAL_S = 15.0
_MAX_SOURCES = 4  # more would not fit a line


class ProgressView:
    """Shows lines of metrics.jsonl as they are written.

    Args:
        console: where to (standard error, so that standard output stays for answers).
        num_steps: steps of the whole run.
        epochs: epochs of the whole run.
    """

    def __init__(self, console: Console, num_steps: int, epochs: int) -> None:
        self._console = console
        self._num_steps = num_steps
        self._epochs = epochs
        self._bar: Progress | None = None
        self._shown = 0.0
        self._warned = False
        self._starts = 0  # the first is that of this command
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[loss]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
            )
            self._task = self._bar.add_task("epoch 1", total=num_steps, rate="", loss="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, line: dict[str, Any]) -> None:
        """Show one line."""
        kind = line.get("kind")
        if kind == "step":
            self._step(line)
        elif kind == "epoch":
            self._epoch(line)
        elif kind == "start":
            self._starts += 1
            if self._starts > 1:
                self._say(f"a worker was lost; the workers were started again, from step {line['step']}")

    def _step(self, line: dict[str, Any]) -> None:
        rate = f"{line['samples_per_s']:.0f} clips/s"
        terms = " ".join(f"{_SHORT[name]} {line[name]:.3f}" for name in _SHORT if line.get(name) is not None)
        if self._bar is not None:
            epoch = f"epoch {line['epoch'] + 1}/{self._epochs}"
            self._bar.update(self._task, completed=line["step"], description=epoch, rate=rate, loss=terms)
        elif time.monotonic() - self._shown > _PLAIN_INTERVAL_S:
            self._shown = time.monotonic()
            self._say(f"step {line['step']}/{self._num_steps}  {terms}  {rate}")

    def _epoch(self, line: dict[str, Any]) -> None:
        self._shown = time.monotonic()
        validation = line["validation"]
        parts = [f"student {_mae(validation['student'])}"]
        parts += [f"{name} {_mae(validation[name])}" for name in ("video", "prompt") if name in validation]
        sources = [f"{name} {_mae(scores['student'])}" for name, scores in line.get("sources", {}).items()]
        if 1 < len(sources) <= _MAX_SOURCES:
            parts[0] += f" ({', '.join(sources)})"
        star = "  ← best" if line.get("best") else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=line["step"])
        self._say(
            f"epoch {line['epoch'] + 1:>3}/{self._epochs}  step {line['step']:>5}  loss {line['train']['total']:.3f}  "
            f"validation MAE: {', '.join(parts)}{star}"
        )
        if line.get("collapse") and not self._warned:
            self._warned = True
            self._say(f"warning: {collapse_words(line['collapse'])}")

    def _say(self, text: str) -> None:
        (self._bar.console if self._bar is not None else self._console).print(
            text, highlight=False, markup=False, soft_wrap=True
        )


# The objective's terms as short names, in the order of its weights α β γ δ ψ.
_SHORT = {
    "total": "loss",
    "video_regression": "v",
    "text_regression": "t",
    "video_classification": "c",
    "prompt_to_video": "p→v",
    "video_to_text": "v→t",
}


def collapse_words(collapse: dict[str, Any]) -> str:
    """What to say of weights under which the student's own term no longer counts."""
    ratio = collapse["ratio"]
    times = f"{ratio:.0f} times" if ratio is not None else "infinitely more than"
    return (
        f"the weights have collapsed: {collapse['term']} weighs {times} the student's own term, which hardly counts. "
        "Set objective.weighting to equal, dwa or fixed."
    )


def _mae(metrics: dict[str, Any]) -> str:
    return "–" if metrics["mae"] is None else f"{metrics['mae']:.3f}"


class MetricsTail:
    """Follows metrics.jsonl while other processes write it, and hands over each new line.

    Either in a thread of its own, from now on, as a context; or by calling `poll`, from the first line on.

    A run that goes on replaces the file by one without the lines of the attempt before; that one is read from its
    start, and what is no newer than the last line that was seen is not shown again.
    """

    def __init__(self, path: Location, show: Callable[[dict[str, Any]], None], interval_s: float = 0.5) -> None:
        self._lines = LineReader(path, interval_s)
        self._show = show
        self._seen = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vadv-progress", daemon=True)

    @property
    def interval_s(self) -> float:
        """Seconds between two looks."""
        return self._lines.interval_s

    def poll(self) -> None:
        """Look once, and hand over what is new."""
        self._read(self._show)

    def __enter__(self) -> Self:
        self._read(lambda line: None)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.interval_s):
            self._read(self._show)
        self._read(self._show)

    def _read(self, show: Callable[[dict[str, Any]], None]) -> None:
        for raw in self._lines.new():
            try:
                line = parse_json(raw)
            except JsonError:
                continue  # half a line of a killed attempt, which the next one trims
            if line["time"] > self._seen:
                self._seen = line["time"]
                show(line)

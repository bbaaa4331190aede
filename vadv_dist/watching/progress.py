"""Progress of a training run from the lines of metrics.jsonl: a bar in a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.formats.json_text import JsonError, parse_json
from vadv_dist.runs.history import RunHistory
from vadv_dist.runs.records import EpochLine, Line, NoteLine, StartLine, StepLine, parse_line
from vadv_dist.runtime.terminal import duration
from vadv_dist.storage import LineReader, Location

_PLAIN_INTERVAL_S = 15.0
_MAX_SOURCES = 4  # more would not fit a line
_CAUSES = {
    "hang": "the run hung",
    "preemption": "a node left the cluster",
    "resize": "the number of workers changed",
}


class ProgressView:
    """Shows lines of metrics.jsonl as they are written.

    Args:
        console: the output.
        num_steps, epochs: totals of the run.
        description: the task, if the start line is not among the lines that will be shown.
    """

    def __init__(
        self, console: Console, num_steps: int, epochs: int, description: TaskDescription | None = None
    ) -> None:
        self._console, self._num_steps, self._epochs, self._description = console, num_steps, epochs, description
        self._shown = 0.0
        self._warned = self._started = False
        self._history = RunHistory()
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
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("epoch 1", total=num_steps, rate="", loss="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, line: Line) -> None:
        """Show one line."""
        self._history(line)
        if isinstance(line, StartLine):
            self._description = line.task
            if self._started:
                why = _CAUSES.get(line.cause, "a worker was lost")
                self._say(f"{why}; the workers were restarted from step {line.step}")
            else:
                self._say_terms(line.task)
            self._started = True
            for note in line.notes:
                self._say(note)
        elif isinstance(line, StepLine):
            self._step(line)
        elif isinstance(line, EpochLine) and self._description is not None:
            self._epoch(line, self._description)
        elif isinstance(line, NoteLine):
            self._say(line.what)

    def _step(self, line: StepLine) -> None:
        rate = f"{line.samples_per_s:.0f} clips/s"
        shorts = {"total": "loss"}
        if self._description is not None:
            shorts |= {term.name: term.short for term in self._description.terms}
        shown = ((short, line.terms.get(name)) for name, short in shorts.items())
        terms = " ".join(f"{short} {value:.3f}" for short, value in shown if value is not None)
        epoch = f"epoch {line.epoch + 1}/{self._epochs}"
        self._bar.update(self._task, completed=line.step, description=epoch, rate=rate, loss=terms)
        if not self._console.is_terminal and time.monotonic() - self._shown > _PLAIN_INTERVAL_S:
            self._shown = time.monotonic()
            left_s = self._history.seconds_left
            left = "" if left_s is None else f"  {duration(left_s)} left"
            self._say(f"step {line.step}/{self._num_steps}  {terms}  {rate}{left}")

    def _say_terms(self, task: TaskDescription) -> None:
        """What the short names of the loss terms mean, once."""
        if len(task.terms) > 1:
            terms = "; ".join(f"{term.short} {term.title}" for term in task.terms)
            self._say(f"loss: the weighted sum of {terms}")

    def _epoch(self, line: EpochLine, task: TaskDescription) -> None:
        self._shown = time.monotonic()
        star = "  ← best" if line.best else ""
        self._bar.update(self._task, completed=line.step)
        loss = f"loss {line.train['total']:.3f}  " if line.train else ""  # none in closed form
        self._say(
            f"epoch {line.epoch + 1:>3}/{self._epochs}  step {line.step:>5}  {loss}"
            f"validation {_validation(line, task)}{star}"
        )
        if line.collapse and not self._warned:
            self._warned = True
            self._say(f"warning: {line.collapse}")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _validation(line: EpochLine, task: TaskDescription) -> str:
    """The score of each output by metric: an output without the task's score is shown by its own first metric."""
    by_metric: dict[str, list[str]] = {}
    for output in task.outputs:
        if (values := line.validation.get(output.name)) is not None:
            metric = task.first_metric(values)
            by_metric.setdefault(metric.title, []).append(f"{output.name} {shown(values.get(metric.key), metric)}")
    metric = task.score_metric
    sources = [
        f"{name} {shown(m.get(task.student.name, {}).get(metric.key), metric)}" for name, m in line.sources.items()
    ]
    if by_metric and 1 < len(sources) <= _MAX_SOURCES:
        next(iter(by_metric.values()))[0] += f" ({', '.join(sources)})"
    return "; ".join(f"{title}: {', '.join(parts)}" for title, parts in by_metric.items())


def shown(value: float | None, metric: Metric) -> str:
    """A metric's value in a line: three decimals, or percent with one; a dash if there is none."""
    return "–" if value is None else f"{value:.1%}" if metric.percent else f"{value:.3f}"


class MetricsTail:
    """Follows metrics.jsonl while another process writes it, and passes each new line to `show`.

    As a context, it reads later lines in a background thread; `poll` reads from the first line on. When a run resumes,
    it replaces the file by one without the lines of what it repeats, which is then read from the start; lines that are
    already known are skipped. Their times are no help, because each line has that of the clock of its own machine.
    """

    def __init__(self, path: Location, show: Callable[[Line], None], interval_s: float = 0.5) -> None:
        self._lines = LineReader(path, interval_s)
        self._show = show
        self._known: set[int] = set()  # hashes of lines, which differ at least in their times
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vadv-progress", daemon=True)

    @property
    def interval_s(self) -> float:
        """Seconds between two reads."""
        return self._lines.interval_s

    def poll(self) -> None:
        """Read new lines once."""
        self._read(self._show)

    def __enter__(self) -> Self:
        self._read(lambda line: None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.interval_s):
            self._read(self._show)
        self._read(self._show)

    def _read(self, show: Callable[[Line], None]) -> None:
        for raw in self._lines.new():
            if (line_hash := hash(raw)) in self._known:
                continue
            self._known.add(line_hash)
            try:
                line = parse_line(parse_json(raw))
            except JsonError:
                continue  # an incomplete line of a killed attempt, which the next attempt removes
            if line is not None:
                show(line)

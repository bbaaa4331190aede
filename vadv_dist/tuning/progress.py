"""How many trainings a search or a study consists of, how many have ended, and when the rest will have."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from vadv_dist.config import Config
from vadv_dist.config.search import SearchConfig
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import epoch_costs
from vadv_dist.runtime.terminal import counted, duration
from vadv_dist.storage import Location, read_json, write_json
from vadv_dist.tuning.events import Ended, Event
from vadv_dist.tuning.jobs import Job
from vadv_dist.tuning.objectives import Objective
from vadv_dist.tuning.space import WEIGHTS, Space
from vadv_dist.tuning.study_folder import PROGRESS

# Seconds between two lines about the time left.
_REMIND_S = 600.0
_WATCH_S = 2.0
# A running search whose trainings have written no line for this long is reported as silent, like a run.
_SILENT_S = 300.0


@dataclass(frozen=True)
class Plan:
    """The trainings of a search by stage; the last two are known when the trials have ended, and these are the most.

    Args:
        noise: of the default.
        rivals: of `search.rivals`.
        trials: of the study.
        repeats: of the best trials.
        leave_one_out: of the winner without each term.
    """

    noise: int
    rivals: int
    trials: int
    repeats: int
    leave_one_out: int

    @classmethod
    def of(cls, config: Config, space: Space, search: SearchConfig) -> "Plan":
        """The plan of a search."""
        terms = 0
        if search.leave_one_out and config.objective.kind != "none":
            searched = {entry.field for entry in space.searched}
            terms = sum(
                getattr(config.objective, weight, 0.0) > 0 or f"objective.{weight}" in searched for weight in WEIGHTS
            )
        seeds, top = search.seeds, min(search.top, search.num_trials - 1)
        return cls(seeds, len(search.rivals) * seeds, search.num_trials, top * seeds, terms * seeds)

    @property
    def total(self) -> int:
        """Number of trainings."""
        return sum(dataclasses.astuple(self))

    def to_json(self) -> dict[str, int]:
        """The stages and their sum."""
        return {**dataclasses.asdict(self), "total": self.total}

    def sentence(self) -> str:
        """The plan in words."""
        parts = [f"{self.noise} for the noise between seeds", counted(self.trials, "trial")]
        parts += [f"{self.rivals} of rivals"] if self.rivals else []
        parts += [f"up to {self.repeats} repeats of the best"] if self.repeats else []
        parts += [f"up to {self.leave_one_out} without one term"] if self.leave_one_out else []
        return f"about {counted(self.total, 'training')}: {', '.join(parts)}"


class Progress:
    """Counts trainings, says now and then when all will have ended, and keeps `progress.json`.

    Args:
        root: the folder of the search or the study.
        plan: number of trainings by stage, and their `total`.
        say: prints a line.
        score: the objective that is searched for; None if trainings are not compared.
        ended: trainings that ended in earlier processes.
        best: name and cost of the best of them.
    """

    def __init__(
        self,
        root: Location,
        plan: Mapping[str, int],
        say: Callable[[str], None],
        *,
        score: Objective | None = None,
        ended: int = 0,
        best: tuple[str, float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._plan, self._root, self._score, self._say, self._clock = plan, root, score, say, clock
        self._ended, self._best = ended, best
        self._running: dict[str, tuple[float, str]] = {}  # since when, and which run, by key
        self._durations: list[float] = []
        self._one_s: float | None = None
        self._at_a_time = 1
        self._said = 0.0

    def changed(self, running: Mapping[str, Job]) -> None:
        """Take the jobs that run now."""
        now = self._clock()
        self._running = {key: self._running.get(key, (now, "")) for key in running}
        for key, job in running.items():
            folder = RunFolder.of(job.config).root
            self._running[key] = self._running[key][0], f"{folder.parent.name}/{folder.name}"
        self._at_a_time = max(self._at_a_time, len(running))
        self._write("running")

    def ended(self, key: str, event: Event) -> None:
        """Count a training that has ended."""
        now = self._clock()
        self._ended += 1
        if key in self._running:
            self._durations.append(now - self._running[key][0])
        if isinstance(event, Ended):
            if self._best is None or event.result.cost < self._best[1]:
                self._best = key, event.result.cost
            if self._one_s is None:
                self._one_s = event.result.wall_time_s
                self._say(f"one training takes {duration(self._one_s)}; {self._left_text()}")
                self._said = now
        if now - self._said > _REMIND_S and self._one_s is not None:
            self._say(self._left_text())
            self._said = now

    def close(self, *, complete: bool) -> None:
        """Record the end of this process's part."""
        self._running = {}
        self._write("complete" if complete else "stopped")

    def _left_s(self) -> float | None:
        """Seconds left, if the rest takes as long as what has ended in this process, as many at a time."""
        if not self._durations:
            return None
        mean = sum(self._durations) / len(self._durations)
        return mean * max(0, self._plan["total"] - self._ended) / self._at_a_time

    def _left_text(self) -> str:
        left = self._left_s()
        done = _done_text(self._ended, self._plan)
        return done if left is None else f"{done}, about {duration(left)} left"

    def _write(self, state: str) -> None:
        best = None
        if self._best is not None and self._score is not None:
            best = {"name": self._best[0], "text": self._score.phrase(self._best[1])}
        document = {
            "state": state,
            "time": self._clock(),
            "plan": dict(self._plan),
            "ended": self._ended,
            "running": [{"name": key, "since": since, "run": run} for key, (since, run) in self._running.items()],
            "best": best,
            "one_s": self._one_s,
            "left_s": 0.0 if state == "complete" else self._left_s(),
        }
        write_json(self._root / PROGRESS, document)


def state_of(root: Location) -> dict[str, Any]:
    """The content of `progress.json`, with the epochs of each running training and their best score.

    `last_time` is when the search, the study or a training last wrote something, in seconds since 1970.

    Raises:
        UserError: no training has started yet.
    """
    if not (root / PROGRESS).is_file():
        raise UserError(f"{root} has no {PROGRESS}: no training has started yet.")
    state: dict[str, Any] = {"folder": str(root), **read_json(root / PROGRESS)}
    state["last_time"] = state["time"]
    for training in state["running"]:
        lines = RunFolder(root / training["run"]).metrics_log().lines()
        state["last_time"] = max([state["last_time"], *(line.time for line in lines[-1:])])
        costs = [cost for _, cost in epoch_costs(lines)]
        training["epochs"] = len(costs)
        training["best_cost"] = min(costs, default=None)
    return state


def lines_of(state: Mapping[str, Any], now: float) -> list[str]:
    """A state in lines of text."""
    left = "" if state["left_s"] is None or state["state"] != "running" else f", about {duration(state['left_s'])} left"
    lines = [f"{state['folder']}: {state['state']}", f"{_done_text(state['ended'], state['plan'])}{left}"]
    if (silent_s := _silent_s(state, now)) is not None:
        lines.append(
            f"no line for {duration(silent_s)}: its trainings are waiting, or its process has ended; the same command "
            "resumes it"
        )
    if state["best"]:
        lines.append(f"best so far: {state['best']['name']}, {state['best']['text']}")
    for training in state["running"]:
        epochs = f"{counted(training['epochs'], 'epoch')} done" if training["epochs"] else "first epoch"
        lines.append(f"  {training['name']}: {epochs}, running for {duration(now - training['since'])}")
    return lines


def follow(
    state_of: Callable[[], dict[str, Any]],
    console: Console,
    *,
    lines_of: Callable[[Mapping[str, Any], float], list[str]] = lines_of,
    once: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a search or a study until it ends: redrawn in a terminal, elsewhere printed whenever a training has ended.

    Args:
        state_of: reads its state.
        console: the output.
        lines_of: the state in lines of text, at a time.
        once: print the state once and return.
        sleep: waits between updates.
    """
    from rich.live import Live
    from rich.text import Text

    state = state_of()
    if once or not console.is_terminal:
        shown = None
        while True:
            now = time.time()
            if (known := (state["ended"], _silent_s(state, now) is None)) != shown:
                console.print("\n".join(lines_of(state, now)), highlight=False, soft_wrap=True)
                shown = known
            if once or state["state"] != "running":
                return
            sleep(_WATCH_S)
            state = state_of()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Text("\n".join(lines_of(state, time.time()))), refresh=True)
            if state["state"] != "running":
                return
            sleep(_WATCH_S)
            state = state_of()


def _done_text(ended: int, plan: Mapping[str, int]) -> str:
    """How many have ended; the number of a search is known when its trials have ended."""
    about = "about " if len(plan) > 1 else ""
    return f"{ended} of {about}{counted(plan['total'], 'training')} done"


def _silent_s(state: Mapping[str, Any], now: float) -> float | None:
    """Seconds since the last line of what should be running; None if that is not long."""
    silent_s = now - float(state["last_time"])
    return silent_s if state["state"] == "running" and silent_s > _SILENT_S else None

"""What the runs of a study are doing, for `vadv watch`."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import Location
from vadv_dist.studies.plan import StudyRun
from vadv_dist.studies.record import read_record
from vadv_dist.tuning import progress
from vadv_dist.tuning.events import Event, Failed
from vadv_dist.tuning.jobs import outcome


def study_state(root: Location) -> Callable[[], dict[str, Any]]:
    """A function that reads how far a study is; a run that has ended is read once.

    The state is that of `tuning.progress.state_of`, with `runs`: of each run its `variant`, `seed` and `state`
    (`complete`, `failed`, `running` or `waiting`), and of a failed one its `problem`.

    Raises:
        UserError: the folder is not that of a study; the function: no training has started yet.
    """
    plan, _ = read_record(root)
    ended: dict[str, Event] = {}

    def run_state(run: StudyRun, running: set[str]) -> dict[str, Any]:
        event = ended.get(run.name) or outcome(run.folder)
        described = {"variant": run.variant, "seed": run.seed}
        if event is None:
            return {**described, "state": "running" if run.name in running else "waiting"}
        ended[run.name] = event
        if isinstance(event, Failed):
            return {**described, "state": "failed", "problem": f"{event.kind}: {event.message}"}
        return {**described, "state": "complete"}

    def read() -> dict[str, Any]:
        state = progress.state_of(root)
        running = {training["name"] for training in state["running"]}
        return {**state, "runs": [run_state(run, running) for run in plan.runs]}

    return read


def study_lines(state: Mapping[str, Any], now: float) -> list[str]:
    """A study's state in lines of text: that of all trainings, a line per variant, and the failed runs."""
    lines = progress.lines_of(state, now)
    variants = dict.fromkeys(run["variant"] for run in state["runs"])
    for variant in variants:
        runs = [run for run in state["runs"] if run["variant"] == variant]
        counts = Counter(run["state"] for run in runs)
        others = [f"{counts[name]} {name}" for name in ("failed", "running", "waiting") if counts[name]]
        done = f"{counts['complete']} of {counted(len(runs), 'seed')} complete"
        lines.append(f"{variant}: {', '.join([done, *others])}")
    for run in state["runs"]:
        if run["state"] == "failed":
            lines.append(f"failed: {run['variant']}, seed {run['seed']}: {run['problem'].splitlines()[0][:160]}")
    return lines

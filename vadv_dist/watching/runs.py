"""`vadv runs`: the runs below a storage location, with those of studies, searches and workflows."""

import re
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from rich import box
from rich.table import Table

from vadv_dist.errors import UserError, VadvError
from vadv_dist.evaluation.description import Metric
from vadv_dist.runs.folder import FAILURE, RunFolder
from vadv_dist.runs.history import RunHistory
from vadv_dist.runtime.terminal import duration
from vadv_dist.storage import Location, find_json, location
from vadv_dist.watching.progress import MetricsTail, shown
from vadv_dist.watching.watch import snapshot

# Folders of runs in a study or a search.
_INNER = ("runs", "trials", "repeats")
# In the folder of a workflow's stage.
_ATTEMPTS = "attempts"


def list_runs(storage: str) -> list[dict[str, Any]]:
    """Describe all runs of a storage location, the newest first.

    Args:
        storage: `run.storage`, or the folder of a study, a search or a workflow.
    Returns:
        for each run `name` (its folder, relative to the location), `kind`, `state` (`running`, `complete`, `stopped` or
        `failed`), `why` it failed, `metric` and `best` (the student's best validation score so far), `data`, `folder`,
        and `age_s`, seconds since it last wrote. Unknown values are None.
    Raises:
        UserError: no such folder, or no run in it.
    """
    root = location(storage)
    if (root / "config.yaml").is_file():
        return [_describe(root, root.name)]
    if not root.is_dir():
        what = "is a file" if root.is_file() else "does not exist"
        raise UserError(f"The folder {root} {what}. Give the folder that runs are stored in (run.storage).")
    found = [_describe(folder, name) for name, folder in _folders(root)]
    if not found:
        raise UserError(f"{root} contains no runs. Give the folder that runs are stored in (run.storage).")
    return sorted(found, key=lambda run: (run["age_s"] is None, run["age_s"], run["name"]))


def newest_run(folder: str) -> str:
    """The run in a folder, or below it (`run.storage`, a workflow) the one that wrote last.

    Raises:
        UserError: no such folder, or no run in it.
    """
    root = location(folder)
    if (root / "config.yaml").is_file():
        return folder
    return str(list_runs(folder)[0]["folder"])


def runs_table(runs: list[dict[str, Any]]) -> Table:
    """The result of `list_runs` for a terminal; it may be wider, because names have to be whole to be copied."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, justify in (("run", "left"), ("state", "left"), ("best", "right"), ("data", "left"), ("age", "right")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # one of rich's words
    for run in runs:
        best = "-" if run["best"] is None else f"{run['metric']} {run['shown']}"
        age = "-" if run["age_s"] is None else _age(run["age_s"])
        table.add_row(run["name"], run["state"], best, ", ".join(run["data"]) or "-", age)
    return table


def _folders(root: Location) -> Iterator[tuple[str, Location]]:
    """Runs in a folder, in the studies, searches and workflows in it, and in itself if it is one; with their relative
    names."""
    for folder in _children(root):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        if (folder / "config.yaml").is_file():
            yield folder.name, folder
            continue
        groups = [(folder.name, folder)] if folder.name in _INNER else []
        groups += [(f"{folder.name}/{inner}", folder / inner) for inner in _INNER if (folder / inner).is_dir()]
        for name, group in groups:
            for run in _children(group):
                if (run / "config.yaml").is_file() or (run / FAILURE).is_file():
                    yield f"{name}/{run.name}", run
        stages = [(folder.name, folder)] if _is_stage(folder) else _stages(folder, folder.name, depth=2)
        for name, stage in stages:
            for inner, run in _folders(stage):
                yield f"{name}/{inner}", run


def _stages(folder: Location, name: str, *, depth: int) -> Iterator[tuple[str, Location]]:
    """The stages of a workflow, `<workflow>/<stage>/<identity>`, below a folder at most `depth` levels deep."""
    for child in _children(folder):
        if _is_stage(child):
            yield f"{name}/{child.name}", child
        elif depth > 1 and not child.name.startswith(".") and child.is_dir():
            yield from _stages(child, f"{name}/{child.name}", depth=depth - 1)


def _is_stage(folder: Location) -> bool:
    return re.fullmatch(r"[0-9a-f]{12}", folder.name) is not None and (folder / _ATTEMPTS).is_dir()


def _children(folder: Location) -> list[Location]:
    children: list[Location] = [*folder.iterdir()]
    return sorted(children, key=lambda path: path.name)


def _describe(root: Location, name: str) -> dict[str, Any]:
    folder = RunFolder(root)
    described: dict[str, Any] = {"name": name, "kind": None, "metric": None, "best": None, "shown": None}
    try:
        history = RunHistory()
        MetricsTail(folder.metrics_path, history).poll()
        found, failure = snapshot(folder, history), find_json(root / FAILURE)
        described |= {"state": _state(found["state"], failure is not None), "why": None}
        if failure is not None:
            described["why"] = f"{failure.get('kind')}: {failure.get('message')}"
        elif history.fault is not None:
            described["why"] = history.fault.what
        trained_on = folder.trained_on()
        places = [] if trained_on is None else [source.place for source in trained_on.data]
        described["data"] = [PurePosixPath(place).name for place in places]
        described["age_s"] = None if history.last_time is None else max(0.0, time.time() - history.last_time)
        if (task := history.task) is not None:
            metric = task.score_metric
            values = [line.validation.get(task.student.name, {}).get(metric.key) for line in history.epoch_lines]
            described |= {"kind": task.kind, "metric": metric.title, **_best(values, metric)}
    except VadvError as error:  # of another version, or damaged
        described |= {"state": "unreadable", "why": str(error), "data": [], "age_s": None}
    return {**described, "folder": str(root)}


def _best(values: list[int | float | None], metric: Metric) -> dict[str, Any]:
    known = [float(value) for value in values if value is not None]
    best = min(known, key=metric.cost, default=None)
    return {"best": best, "shown": None if best is None else shown(best, metric)}


def _state(state: str, has_failed: bool) -> str:
    if state == "complete":
        return state
    if has_failed or state.startswith("stopped:"):
        return "failed"
    return "running" if state == "running" else "stopped"


def _age(seconds: float) -> str:
    days = int(seconds // 86_400)
    return f"{days} d" if days else duration(seconds)

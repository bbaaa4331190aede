"""What a process of the flow in jobs/workflow.py does besides Metaflow: its settings, one stage, errors, SIGTERM."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from vadv_dist.runtime.signals import TERMINATED
from vadv_dist.storage import local_copy, read_json
from vadv_dist.workflow.stage import CARD, MANIFEST, read_finished

if TYPE_CHECKING:
    from rich.console import Console

MAX_WORKERS = "METAFLOW_RUN_MAX_WORKERS"
FILE = "VADV_WORKFLOW"  # the workflow file if none is given: that of a flow that was compiled for Argo
ERRORS = "VADV_FLOW_ERRORS"  # the file for errors, which the process that started the flow reports
PLANNED = "VADV_FLOW_PLANNED"  # the file with `Workflow.planned`, from the process that started the flow
STAGE_LINE = "stage "  # at the start of a task's output, before its stage's name
_IN_POD = "METAFLOW_KUBERNETES_WORKLOAD"  # set by Metaflow
_RUNS = ("run", "resume")
_LEAVING_S = 60.0  # for tasks to end after SIGTERM; trainings save a checkpoint


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what Metaflow reads from the environment, unless it is set.

    A user name, because containers often have none and Metaflow refuses `root`; at most one task per core, and one at a
    time on a machine with a GPU, whose memory trainings cannot share.
    """
    names = (environment.get(name) for name in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER"))
    if all(name in (None, "", "root") for name in names):
        environment["METAFLOW_USER"] = "vadv"
    environment.setdefault(MAX_WORKERS, str(1 if os.path.exists("/dev/nvidia0") else _cores()))
    environment.setdefault("METAFLOW_RUN_MAX_NUM_SPLITS", "10000")


def threads_for(tasks: int, environment: MutableMapping[str, str]) -> None:
    """Share the cores among tasks that run at the same time; to be called before torch is imported.

    Not in production, where each task has a pod of its own.
    """
    if _IN_POD in environment:
        return
    at_once = max(1, min(tasks, int(environment.get(MAX_WORKERS, _cores()))))
    environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // at_once)))


@dataclass(frozen=True)
class Started:
    """What the tasks of a flow are told.

    Attributes:
        data_sets: names of the data sets.
        trainings: names of the trainings' stages, without `train-`.
        planned: see `Workflow.planned`: files from outside are read once, when the flow starts.
        forced: the attempt that completed each stage that is to run again; if there is a later one, it has.
    """

    data_sets: list[str]
    trainings: list[str]
    planned: dict[str, Any]
    forced: dict[str, int]


def start_flow(file: str, overrides: Sequence[str], force: Sequence[str]) -> Started:
    """Plan the workflow of a flow.

    Args:
        file: the workflow file.
        overrides: `--section.field=value`.
        force: complete stages to run again.
    Raises:
        UserError: a mistake in the file, or no such stage in `force`.
    """
    from vadv_dist.workflow.plan import plan_workflow

    planned = read_json(Path(os.environ[PLANNED])) if PLANNED in os.environ else None
    workflow = plan_workflow(file, overrides, planned)
    trainings = [name.removeprefix("train-") for name in workflow.of_kind("train")]
    found = {name: read_finished(workflow.folder(workflow.stage(name))) for name in force}
    forced = {name: int(finished.manifest["attempt"]) for name, finished in found.items() if finished is not None}
    return Started(list(workflow.config.data), trainings, workflow.planned, forced)


def call_stage(
    file: str, overrides: Sequence[str], name: str, started: Started, console: "Console", address: str | None = None
) -> str | None:
    """Run a stage unless it is complete, and return its page; None if the workflow has no such stage.

    Args:
        file: the workflow file.
        overrides: `--section.field=value`.
        name: name of the stage.
        started: from the start of the flow.
        console: shows progress.
        address: the job server of a cluster that runs heavy stages; None runs all stages here.
    """
    from vadv_dist.workflow.plan import plan_workflow
    from vadv_dist.workflow.remote import run_remote
    from vadv_dist.workflow.run import run_stage

    workflow = plan_workflow(file, overrides, started.planned)
    if name not in workflow.stages:
        return None
    print(f"{STAGE_LINE}{name}", file=sys.stderr, flush=True)
    known = read_finished(workflow.folder(workflow.stages[name]))
    is_forced = known is not None and known.manifest["attempt"] == started.forced.get(name)
    if address:
        finished = run_remote(workflow, file, overrides, name, address, console, force=is_forced)
    else:
        finished = run_stage(workflow, name, console, force=is_forced)
    with local_copy(finished.folder, (MANIFEST, CARD)) as folder:
        return (folder / CARD).read_text(encoding="utf-8")


def say_error(name: str, text: str, code: int) -> None:
    """Report an error to the process that started the flow, or on standard error if there is none."""
    if ERRORS not in os.environ:
        print(f"vadv: {text}", file=sys.stderr)
        return
    line = json.dumps({"stage": name, "message": text, "code": code}) + "\n"
    with open(os.environ[ERRORS], "a", encoding="utf-8") as file:
        file.write(line)


@contextlib.contextmanager
def stops_tasks(arguments: Sequence[str]) -> Iterator[None]:
    """On SIGTERM, let the tasks of a run end before Metaflow, which would start them again or kill them after 5 s.

    Args:
        arguments: those of the process; one that is not a run is left as it is.
    """
    if not any(argument in _RUNS for argument in arguments[1:]):
        yield
        return
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        stopped = True
        tasks = psutil.Process().children()
        for task in tasks:
            with contextlib.suppress(psutil.NoSuchProcess):
                task.terminate()
        deadline = time.monotonic() + _LEAVING_S
        while any(_is_working(task) for task in tasks) and time.monotonic() < deadline:
            time.sleep(0.05)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except SystemExit:
        if stopped:
            sys.exit(TERMINATED)
        raise


def _is_working(task: psutil.Process) -> bool:
    try:
        return task.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

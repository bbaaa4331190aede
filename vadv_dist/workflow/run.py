"""Run one stage, unless it is complete."""

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vadv_dist.errors import UserError
from vadv_dist.storage import Location, clear, write_text
from vadv_dist.workflow.attempts import ATTEMPTS, LOCK, next_attempt
from vadv_dist.workflow.outside import require_unchanged
from vadv_dist.workflow.plan import Workflow
from vadv_dist.workflow.stage import MANIFEST, Finished, Stage, Work, manifest_of, read_finished

if TYPE_CHECKING:
    from rich.console import Console

# In a folder whose content is being removed.
_CLEARING = ".clearing"


def run_stage(workflow: Workflow, name: str, console: "Console", *, force: bool = False) -> Finished:
    """Run a stage and return it, or return it if it is complete.

    A stage that another process works on is waited for. One that was killed resumes from what it left.

    Args:
        workflow: the workflow.
        name: name of the stage.
        console: shows progress.
        force: run it again although it is complete.
    Raises:
        UserError: there is no such stage, or one that it needs is not complete; a mistake in the stage's settings; or
            a file from outside that changed since the workflow was planned.
        MachineError: the stage failed, or another process completed it first.
    """
    stage = workflow.stage(name)
    inputs = inputs_of(workflow, stage)
    folder = workflow.folder(stage)
    known = read_finished(folder)
    if known is not None and stage.is_current(known, inputs) and not force:
        console.print(f"{name}: complete in {folder}", highlight=False, soft_wrap=True)
        return known
    with next_attempt(folder, _say(console, name)) as attempt:
        found = read_finished(folder)
        is_new = found is not None and (known is None or found.manifest["attempt"] != known.manifest["attempt"])
        if found is not None and stage.is_current(found, inputs) and (not force or is_new):
            attempt.end("not needed")
            console.print(f"{name}: completed by another process in {folder}", highlight=False, soft_wrap=True)
            return found
        if (folder / _CLEARING).is_file() or (found is not None and (force or not found.is_built_on(inputs))):
            _clear(folder)
        elif found is not None:  # only large files from outside have other versions, and the stage compares contents
            (folder / MANIFEST).unlink(missing_ok=True)
        require_unchanged(stage.outside, stage.seen, name)
        started = time.time()
        console.print(f"{name}: running in {folder}", highlight=False, soft_wrap=True)
        outcome = stage.run(Work(folder, inputs, console))
        ended = time.time()
        facts = {"started": started, "finished": ended, "host": socket.gethostname()}
        manifest = attempt.complete({**manifest_of(stage, folder, inputs, outcome), **facts})
    console.print(f"{name}: complete after {ended - started:.0f} s", highlight=False, soft_wrap=True)
    return Finished(folder, manifest)


def run_all(workflow: Workflow, console: "Console", *, force: tuple[str, ...] = ()) -> dict[str, Finished]:
    """Run every stage in this process, one after another, and return them by name."""
    for name in force:
        workflow.stage(name)
    return {name: run_stage(workflow, name, console, force=name in force) for name in workflow.stages}


def inputs_of(workflow: Workflow, stage: Stage) -> dict[str, Finished]:
    """The complete inputs of a stage by name.

    Raises:
        UserError: a stage that it needs is not complete.
    """
    for each in stage.after:
        _required(workflow, each, stage.name)
    return {each.name: _required(workflow, each, stage.name) for each in stage.inputs}


def _required(workflow: Workflow, stage: Stage, by: str) -> Finished:
    finished = read_finished(workflow.folder(stage))
    if finished is None:
        raise UserError(f"{by} needs {stage.name}, which is not complete. Run that stage, or the whole workflow.")
    return finished


def _say(console: "Console", name: str) -> Callable[[str], None]:
    return lambda text: console.print(f"{name}: {text}", highlight=False, soft_wrap=True)


def _clear(folder: Location) -> None:
    """Remove what a stage produced; if that is interrupted, the next attempt continues with it."""
    write_text(folder / _CLEARING, "")
    clear(folder, first=MANIFEST, keep=(ATTEMPTS, LOCK, _CLEARING))
    (folder / _CLEARING).unlink(missing_ok=True)

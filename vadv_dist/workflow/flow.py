"""Run a workflow's stages in parallel through the Metaflow flow in jobs/workflow.py, which this process starts."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vadv_dist.config.shipped import shipped_folders
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import location, on_disk, scratch_folder, write_json
from vadv_dist.workflow.explain import explain
from vadv_dist.workflow.flow_process import ERRORS, MAX_WORKERS, PLANNED, STAGE_LINE, prepare
from vadv_dist.workflow.plan import Workflow

if TYPE_CHECKING:
    from rich.console import Console

DATASTORE, CARDS = "METAFLOW_DATASTORE_SYSROOT_LOCAL", "METAFLOW_CARD_LOCALROOT"
# A line of Metaflow: time, task (run, step, number and process), text.
_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (?:\[(?P<task>[^\]]*?)(?: \(pid \d+\))?\] )?(?P<text>.*)")
# What Metaflow says of a task in the task's name.
_CHATTER = (
    "Task is starting.",
    "Task finished successfully.",
    "Task failed.",
    "[KILLED BY ORCHESTRATOR]",
    "Foreach yields ",
)
_AGAIN = "Task is starting (retry)."
_LAST_LINES = 20  # of Metaflow itself, kept for an error that no stage reported


def find_flow() -> Path:
    """Return jobs/workflow.py of this checkout or installation.

    Raises:
        MachineError: the installation is damaged.
    """
    places = shipped_folders("jobs", "jobs")
    for place in places:
        if (place / "workflow.py").is_file():
            return place / "workflow.py"
    raise MachineError(f"jobs/workflow.py is missing in {places[1]}. Install vadv again.")


def run_flow(
    workflow: Workflow,
    file: str | Path,
    overrides: Sequence[str],
    console: "Console",
    *,
    force: Sequence[str] = (),
    max_workers: int | None = None,
    address: str | None = None,
) -> None:
    """Run every stage that is not complete, in parallel as far as they allow.

    If there is none, nothing is started. Metaflow keeps its records in `.metaflow` in the workflow's storage if that is
    on a disk, otherwise in a temporary folder; `METAFLOW_DATASTORE_SYSROOT_LOCAL` or `METAFLOW_DEFAULT_DATASTORE` name
    another place. Nothing depends on them.

    Args:
        workflow: the workflow.
        file: its file, or the name of a shipped one.
        overrides: `--section.field=value`.
        console: shows what the stages say, with their names.
        force: complete stages to run again.
        max_workers: tasks at the same time; None is one per core, and one at a time on a machine with a GPU.
        address: the job server of a cluster that runs heavy stages; None runs all stages here.
    Raises:
        UserError: there is no such stage in `force`, or a stage found a mistake.
        MachineError: a stage failed, also when it was tried again.
    """
    if max_workers is not None and max_workers < 1:
        raise UserError(f"--max-workers {max_workers}: at least one stage runs at a time. Give 1 or more.")
    found = explain(workflow, force)
    missing = [each for each in found if each.will_run]
    if not missing:
        console.print(f"all {len(found)} stages of {workflow.root} are complete", highlight=False, soft_wrap=True)
        return
    text = f"{counted(len(missing), 'stage')} of {len(found)} to run in {workflow.root}"
    console.print(text, highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        environment = dict(os.environ)
        if max_workers is not None:
            environment[MAX_WORKERS] = str(max_workers)
        prepare(environment)
        if DATASTORE not in environment and "METAFLOW_DEFAULT_DATASTORE" not in environment:
            storage = on_disk(location(workflow.config.workflow.storage))
            records = scratch if storage is None else storage.resolve()
            environment[DATASTORE] = str(records)
            environment.setdefault(CARDS, str(records / ".metaflow" / "mf.cards"))  # else in the working directory
        errors, planned = scratch / "errors.jsonl", scratch / "planned.json"
        write_json(planned, workflow.planned)
        environment.update({ERRORS: str(errors), PLANNED: str(planned)})
        environment.setdefault("COLUMNS", "160")  # the tasks' output is no terminal, which rich takes for 80
        options = ["--file", str(file), "--overrides", shlex.join(overrides), "--force", ",".join(force)]
        options += ["--address", address or ""]
        command = [sys.executable, str(find_flow()), "--quiet", "--no-pylint", "run", *options]
        code, said = _watched(command, environment, errors, console)
        reported = said.errors  # before the folder is removed
    if code:
        mistakes = [error for error in reported if error["code"] == UserError.exit_code]
        if mistakes:
            raise UserError(mistakes[0]["message"])
        if reported:
            raise MachineError(reported[-1]["message"])
        raise MachineError("\n".join((f"Metaflow ended with exit code {code}:", *said.last)))


class _Output:
    """What the flow says, line by line."""

    def __init__(self, errors: Path, console: "Console") -> None:
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._file, self._console = errors, console
        self._stages: dict[str, str] = {}

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The errors that stages reported so far."""
        return list(_errors(self._file))

    def take(self, line: str) -> None:
        """Print a line with its stage's name in front, if it is a stage's."""
        found = _LINE.fullmatch(line)
        task, text = (found["task"], found["text"]) if found else (None, line)
        if task is None:
            self.last.append(text)
        elif text.startswith(STAGE_LINE):
            self._stages[task] = text.removeprefix(STAGE_LINE)
        elif text == _AGAIN:
            name = self._name(task)
            why = [error["message"] for error in self.errors if error["stage"] == name][-1:] or [
                "it was killed, or failed as shown above"
            ]
            self._print(name, f"failed and is tried again: {why[0]}")
        elif text and not text.startswith(_CHATTER):
            self._print(self._name(task), text)

    def _name(self, task: str) -> str:
        return self._stages.get(task, task.split("/")[1] if "/" in task else task)

    def _print(self, name: str, text: str) -> None:
        shown = text if text.startswith(f"{name}: ") else f"{name}: {text}"
        self._console.print(shown, highlight=False, soft_wrap=True)


def _watched(
    command: Sequence[str], environment: dict[str, str], errors: Path, console: "Console"
) -> tuple[int, _Output]:
    """Run the flow in a session of its own, so that Ctrl-C in a terminal reaches it only through this process."""
    output = _Output(errors, console)
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _follow(process, output)
        return process.wait(), output
    except BaseException:
        process.send_signal(signal.SIGTERM)
        _follow(process, output)
        process.wait()
        raise


def _follow(process: subprocess.Popen[str], output: _Output) -> None:
    assert process.stdout is not None  # a pipe
    for line in process.stdout:
        output.take(line.rstrip("\n"))


def _errors(file: Path) -> Iterator[dict[str, Any]]:
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)

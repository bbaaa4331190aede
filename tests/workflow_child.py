"""A process that runs a workflow and is killed inside one of its stages."""

import dataclasses
import os
import signal
import threading
from multiprocessing import get_context

from rich.console import Console

from vadv_dist.workflow.plan import plan_workflow
from vadv_dist.workflow.run import run_all
from vadv_dist.workflow.stage import Outcome, Work

# Children are forked from a process that has imported everything, which saves seconds for each.
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["workflow_child", "vadv_dist.launch.driver", "vadv_dist.training.evaluate"])


def run_workflow(file: str, kill_in: str | None = None, after_s: float = 0.0) -> int:
    """Run a workflow in a process of its own, and return the process's exit code.

    Args:
        file: the workflow file.
        kill_in: the stage in which the process is killed.
        after_s: seconds after the start of that stage; if it is faster, the process is killed when the stage has done
            its work, before that is recorded.
    """
    process = PROCESSES.Process(target=run_here, args=(file, kill_in, after_s))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def run_here(file: str, kill_in: str | None = None, after_s: float = 0.0) -> None:
    """What that process does; see `run_workflow`."""
    workflow = plan_workflow(file)
    if kill_in is not None:
        stage = workflow.stages[kill_in]

        def run(work: Work) -> Outcome:
            threading.Timer(after_s, _kill).start()
            stage.run(work)
            _kill()
            raise AssertionError("unreachable")

        workflow.stages[kill_in] = dataclasses.replace(stage, run=run)
    run_all(workflow, Console(quiet=True))


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

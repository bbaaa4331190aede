"""A process that runs `vadv`, with the faults that can only come from inside."""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

# Children are forked from a process that has imported everything, which saves seconds for each.
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.soak.child",
        "vadv_dist.cli.command",
        "vadv_dist.launch.driver",
        "vadv_dist.training.evaluate",
        "vadv_dist.tuning.search",
        "vadv_dist.features.extract",
        "vadv_dist.workflow.run",
    ]
)


@dataclass(frozen=True)
class Inside:
    """What goes wrong inside a process; nothing by default.

    Attributes:
        kill_at_publication: SIGKILL before (odd) or after (even) this many files or folders were renamed into place.
        nan_at_step: a weight becomes NaN before this training step of the process.
        clock_jump_s: the wall clock jumps by this much half a second after the start.
        no_memory_after_s: from then on, the process gets no more memory.
        lease_s: seconds after which a lease in an object store counts as abandoned, in place of 25.
    """

    kill_at_publication: int | None = None
    nan_at_step: int | None = None
    clock_jump_s: float | None = None
    no_memory_after_s: float | None = None
    lease_s: float | None = None


def run_here(arguments: list[str], log: str, environment: dict[str, str], inside: Inside) -> None:
    """Run `vadv ARGUMENTS`, writing what it prints to `log`, and end with its exit code."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has processes in the background ignore it
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(stream), "w", buffering=1) for stream in (1, 2))
    import torch

    torch.set_num_threads(1)
    _prepare(inside)
    from vadv_dist.cli.command import run

    if arguments[0] != "soak-workflow":
        run(arguments)
    os._exit(_run_workflow(arguments[1]))


def _run_workflow(file: str) -> int:
    """All stages in this process, without Metaflow's processes."""
    from rich.console import Console

    from vadv_dist.cli.command import exit_code_of
    from vadv_dist.runtime.signals import sigterm_raises
    from vadv_dist.workflow.plan import plan_workflow
    from vadv_dist.workflow.run import run_all

    def call() -> int:
        run_all(plan_workflow(file), Console(quiet=True))
        return 0

    with sigterm_raises():
        return exit_code_of(call)


def _prepare(inside: Inside) -> None:
    if inside.lease_s is not None:
        from vadv_dist.storage import locks

        locks.RENEW_S, locks.LEASE_S = inside.lease_s / 5, inside.lease_s
    if inside.kill_at_publication is not None:
        _kill_at_publication(inside.kill_at_publication)
    if inside.nan_at_step is not None:
        _poison(inside.nan_at_step)
    if inside.clock_jump_s is not None:
        _jump(inside.clock_jump_s)
    if inside.no_memory_after_s is not None:
        threading.Timer(inside.no_memory_after_s, _take_memory).start()


def _kill_at_publication(number: int) -> None:
    count = 0

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def publish(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number and number % 2:
                os.kill(os.getpid(), 9)
            done = original(*arguments, **options)
            if count == number:
                os.kill(os.getpid(), 9)
            return done

        return publish

    os.replace, os.rename = wrap(os.replace), wrap(os.rename)


def _poison(step: int) -> None:
    import torch

    from vadv_dist.engines.torch_engine import TorchEngine

    original, count = TorchEngine.step, 0

    def poisoned(engine: TorchEngine, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == step:
            with torch.no_grad():
                next(iter(engine._step.parameters())).view(-1)[:] = float("nan")
        return original(engine, *arguments, **options)

    TorchEngine.step = poisoned  # type: ignore[method-assign]


def _jump(seconds: float) -> None:
    original, began = time.time, time.monotonic()
    time.time = lambda: original() + (seconds if time.monotonic() > began + 0.5 else 0.0)


def _take_memory() -> None:
    """Bound the process's private memory by what it has now."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[5])  # data and stack
    limit = pages * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))

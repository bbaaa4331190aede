"""Run a script as two gloo ranks on this machine."""

import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vadv_dist.engines.distributed import Distributed
from vadv_dist.formats.tensor_parts import TensorPart, whole_tensors
from vadv_dist.tasks.base import TrainingStep

WORLD_SIZE = 2


def run_ranks(script: str, config_path: Path, argument: object) -> None:
    """Run a script of this folder as two processes, `SCRIPT RANK MEETING_FILE CONFIG ARGUMENT`, until both end well."""
    arguments = [Path(__file__).with_name(script), config_path.parent / "meeting", config_path, argument]
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:]


def _fork_ranks(script: str, *arguments: str) -> int:
    """Import what ranks need, which takes ten seconds, once for all of them; return 0 if all end well."""
    import vadv_dist.engines.deepspeed_engine
    import vadv_dist.launch.worker  # noqa: F401

    ranks = []
    for rank in range(WORLD_SIZE):
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            code = 1
            try:
                sys.argv = [script, str(rank), *arguments]
                runpy.run_path(script, run_name="__main__")
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ranks.append(child)
    while ranks:
        ended, status = os.wait()
        ranks.remove(ended)
        if status:  # the others would wait for it
            for rank in ranks:
                os.kill(rank, signal.SIGKILL)
            return 1
    return 0


def join() -> Distributed:
    """Make this process the rank that its command line names.

    The ranks meet through a file: a port that is free now can be taken before a rank binds it.
    """
    rank, meeting = int(sys.argv[1]), sys.argv[2]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD_SIZE), "LOCAL_RANK": str(rank)}
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD_SIZE)
    return Distributed(rank, WORLD_SIZE)


def whole(parts: Iterable[TensorPart], distributed: Distributed) -> dict[str, Tensor]:
    """Put an engine's parts of all ranks together, on every rank."""
    mine = [replace(part, values=part.values.detach().cpu().clone()) for part in parts]
    return whole_tensors(part for rank in distributed.gather(mine) for part in rank)


def slow_down(forward_s: float, backward_s: float) -> None:
    """Let this rank compute for longer in each pass of a micro-batch."""

    def wait(module: nn.Module, arguments: object, result: tuple[Any, dict[str, Tensor]]) -> None:
        if isinstance(module, TrainingStep) and torch.is_grad_enabled():
            time.sleep(forward_s)
            total = next(term for term in result[1].values() if term.requires_grad)
            total.register_hook(lambda gradient: time.sleep(backward_s))

    torch.nn.modules.module.register_module_forward_hook(wait)


def leave() -> None:
    """Wait for the other rank and end the group."""
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(_fork_ranks(*sys.argv[1:]))

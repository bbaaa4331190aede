"""Run a script as two gloo ranks on this machine."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vadv_dist.engines.distributed import Distributed
from vadv_dist.formats.tensor_parts import TensorPart, whole_tensors

WORLD_SIZE = 2


def run_ranks(script: str, config_path: Path, argument: object) -> None:
    """Run a script of this folder as two processes, `SCRIPT RANK MEETING_FILE CONFIG ARGUMENT`, until both end well."""
    path, meeting = Path(__file__).with_name(script), config_path.parent / "meeting"
    ranks = [
        subprocess.Popen(
            [sys.executable, str(path), str(rank), str(meeting), str(config_path), str(argument)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD_SIZE)
    ]
    outputs = [rank.communicate(timeout=900)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(output[-3000:] for output in outputs)


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


def leave() -> None:
    """Wait for the other rank and end the group."""
    dist.barrier()
    dist.destroy_process_group()

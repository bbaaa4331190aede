"""This process's rank and device, and collective operations."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from vadv_dist.config.trainer_sections import TrainerConfig
from vadv_dist.cuda import has_bf16
from vadv_dist.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Distributed:
    """This process among the processes of a run."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # an immutable value

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over ranks."""
        if self.world_size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, in the order of ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        values = [value] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()


def choose_device(use_gpu: bool | str, local_rank: int = 0) -> torch.device:
    """Return the device of a process.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if use_gpu is False or (use_gpu == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "trainer.use_gpu is true, but no CUDA device is found (`vadv doctor` says why). Set it to auto or false."
        )
    return torch.device("cuda", local_rank)


def choose_dtype(trainer: TrainerConfig, device: torch.device) -> torch.dtype:
    """Return the type in which a model computes: float32 or bfloat16.

    Raises:
        UserError: bf16 is asked for on a GPU that lacks it.
    """
    bf16 = device.type == "cuda" and has_bf16()
    if trainer.precision == "fp32" or (trainer.precision == "auto" and not bf16):
        return torch.float32
    if device.type == "cuda" and not bf16:
        raise UserError("trainer.precision is bf16, but this GPU does not support it. Set it to auto or fp32.")
    return torch.bfloat16


def init_single_process(device: torch.device) -> None:
    """Make a process group of one, which DeepSpeed needs in local mode."""
    if dist.is_initialized():
        return
    os.environ.update({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"})
    store = dist.HashStore()  # type: ignore[attr-defined]  # missing from torch's type stubs
    if device.type == "cuda":  # without `device_id`, barriers warn
        dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=device)
    else:
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)

"""Memory of one device by use, under each engine."""

import contextlib
import os
import socket
from dataclasses import dataclass

import torch

from vadv_dist.config import EngineConfig
from vadv_dist.engines.distributed import Distributed
from vadv_dist.tasks.base import Task


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of the model that a rank trains.

    Attributes:
        parameters, trained: numbers of all parameters, and of those with gradients.
        activations: bytes kept for the backward pass of the largest micro-batch; None if not measurable.
    """

    parameters: int
    trained: int
    activations: int | None = None


def memory_by_use(engine: EngineConfig, sizes: ModelSizes, world_size: int, *, bf16: bool) -> dict[str, int]:
    """Bytes of one device by use (Rajbhandari et al. 2020, arXiv:1910.02054, section 3).

    Args:
        engine: an engine that is chosen: torch or deepspeed.
        sizes: sizes of the model; activations that are not known count as 0.
        world_size: number of ranks.
        bf16: whether the model computes in bf16, with bf16 weights beside fp32 masters; stage 0 keeps fp32 weights.
    """
    stage, plain = engine.stage, engine.kind == "torch"
    rounds = bf16 and (plain or stage > 0)
    weight, gradient = (2, 2) if rounds else (4, 4)
    if stage in (1, 2) or (plain and rounds):
        gradient *= 2  # as autograd leaves them, and in the flat buffer that is reduced or updated from
    # AdamW's two moments, and fp32 masters, which ZeRO keeps even in fp32 training.
    optimizer = 12 if stage >= 1 or rounds else 8
    share = -(-sizes.trained // world_size)
    return {
        "weights": weight * (-(-sizes.parameters // world_size) if stage == 3 else sizes.parameters),
        "gradients": gradient * (share if stage >= 2 else sizes.trained),
        "optimizer": 0 if engine.offload_optimizer else optimizer * (share if stage >= 1 else sizes.trained),
        "activations": sizes.activations or 0,
    }


def measure_sizes(task: Task, max_tokens: int, micro: int, *, bf16: bool) -> ModelSizes:
    """Sizes of a task's model; activations are measured on the meta device, to which the model is moved.

    Every tensor that autograd saves for the backward pass of the largest micro-batch is counted once, except weights.

    Args:
        task: a task of which only shapes are needed.
        max_tokens, micro: tokens of a text, and clips of a micro-batch.
        bf16: whether the model computes in bf16.
    """
    meta = torch.device("meta")
    step = task.step.to(meta).train()
    parameters = list(step.parameters())
    weights = {id(p) for p in parameters}
    seen: dict[tuple[int, torch.Size], int] = {}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(tensor) not in weights and id(base) not in weights:
            seen[(id(base), base.shape)] = base.numel() * base.element_size()
            kept.append(base)
        return tensor

    activations: int | None = None
    with contextlib.suppress(RuntimeError, NotImplementedError):  # an operation that the meta device does not support
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step(task.example(micro, max_tokens, meta), with_terms=False)
        activations = sum(seen.values()) // (2 if bf16 else 1)
    return ModelSizes(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        activations=activations,
    )


def device_bytes(device: torch.device, ranks_here: int = 1) -> int:
    """Memory of a GPU, or of this machine divided by its ranks; what others use at the moment is not subtracted."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // ranks_here


def smallest_device(distributed: Distributed) -> int:
    """Memory of the rank with the least, in bytes, on every rank."""
    hosts = distributed.gather(socket.gethostname())
    own = device_bytes(distributed.device, hosts.count(socket.gethostname()))
    return min(distributed.gather(own))

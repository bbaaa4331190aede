"""Precision and engine of a run, on which all ranks agree, and what to say of them and of the GPUs."""

import os

import torch
from torch import nn

from vadv_dist.config import Config
from vadv_dist.cuda import has_bf16
from vadv_dist.data.sources import Sources
from vadv_dist.engines.choice import Choice, choose_engine
from vadv_dist.engines.deepspeed_config import micro_batch_size
from vadv_dist.engines.distributed import Distributed, choose_dtype
from vadv_dist.engines.memory import ModelSizes, measure_sizes, smallest_device
from vadv_dist.engines.precision import Precision, choose_precision
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.state import TrainState
from vadv_dist.runtime.nvidia_smi import gpu_report, others_on
from vadv_dist.tasks import build


def agreed_precision(config: Config, step: nn.Module, folder: RunFolder, distributed: Distributed) -> Precision:
    """Resolve `trainer.precision: auto`: bf16 if it is faster on every rank; all ranks must call it.

    A run that continues from a checkpoint keeps its precision, except on a GPU that does not compute in bf16.
    """
    own = choose_precision(config.trainer, step, distributed.device)
    if config.trainer.precision != "auto":
        return own
    last = last_checkpoint(folder.checkpoints) if distributed.is_main else None
    begun = distributed.gather(None if last is None else TrainState.from_json(last.state()).precision)[0]
    found = distributed.gather(own)
    chosen = next((precision for precision in found if precision.kind == "fp32"), own)
    if begun is None or begun == "auto" or begun == chosen.kind:
        return chosen
    lacking = distributed.device.type == "cuda" and not has_bf16()
    if begun == "bf16" and any(distributed.gather(lacking)):
        return Precision(chosen.kind, f"{chosen.reason}, in which the run began")
    return Precision(begun, "in which the run began")


def agreed_engine(config: Config, sources: Sources, distributed: Distributed) -> Choice:
    """Resolve `engine.kind: auto` from the model and the device with the least memory; all ranks must call it."""
    world_size, accumulate = distributed.world_size, config.trainer.accumulate
    bf16 = choose_dtype(config.trainer, distributed.device) == torch.bfloat16
    sizes, device = ModelSizes(0, 0), None
    if config.engine.kind == "auto" and world_size > 1:
        with torch.device("meta"):  # a copy of shapes only
            task = build(config, sources, weights=False)
        micro = micro_batch_size(config.data.batch_size, world_size, accumulate)
        sizes = measure_sizes(task, config.data.max_tokens, micro, bf16=bf16)
        device = smallest_device(distributed)
    return choose_engine(config.engine, sizes, world_size, bf16=bf16, accumulate=accumulate, device=device)


def attempt_notes(choice: Choice, precision: Precision, distributed: Distributed) -> list[str]:
    """Lines for the log on how this attempt runs; all ranks must call it."""
    notes = [f"engine: {choice.sentence}" if choice.fits else f"warning: engine {choice.sentence}"]
    if precision.reason:
        notes.append(f"precision: {precision.sentence}")
    if distributed.device.type != "cuda":
        return notes
    facts = torch.cuda.get_device_properties(distributed.device)
    others = others_on(str(facts.uuid), gpu_report().processes, os.getpid())
    shared = f"the GPU of rank {distributed.rank} is also used by {', '.join(map(str, others))}" if others else ""
    return [*notes, *(f"warning: {found}" for found in distributed.gather(shared) if found)]

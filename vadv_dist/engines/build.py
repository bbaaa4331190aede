"""The engine that a configuration names."""

from collections.abc import Sequence

import torch
from torch import nn

from vadv_dist.config import Config, EngineConfig
from vadv_dist.engines.distributed import Distributed, choose_dtype, init_single_process
from vadv_dist.engines.graphs import CudaRecorder
from vadv_dist.engines.protocol import Engine
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import MachineError, UserError, first_line
from vadv_dist.tasks.base import ParameterGroup, TrainingStep


def build_engine(
    config: Config, step: TrainingStep, groups: Sequence[ParameterGroup], distributed: Distributed
) -> Engine:
    """Put a model with its objective, and its trained parameters, on the engine that the configuration names.

    `auto` is plain torch here: a run on several ranks replaces it by `choose_engine`'s choice first.

    Raises:
        UserError: this device or engine cannot do what the configuration asks for.
        MachineError: `engine.compile` is on, and torch cannot compile here.
    """
    dtype = choose_dtype(config.trainer, distributed.device)
    if config.engine.kind != "deepspeed":
        graphs = uses_graphs(config.engine, distributed)
        compiled = distributed.device.type == "cuda" and config.engine.compile != "off"
        notes = []
        # In fp32, there is nothing to compile for the optimizer.
        if compiled and (config.engine.compile == "on" or dtype == torch.bfloat16):
            fault = compile_fault(distributed.device)
            if fault is not None and config.engine.compile == "on":
                raise MachineError(f"engine.compile is on, but torch.compile fails here ({fault}). Set it to auto.")
            if fault is not None:
                compiled = False
                notes.append(f"torch.compile fails here ({fault}). The optimizer runs without it, which is slower.")
        if compiled and config.engine.compile == "on":
            compile_layers(step)
        return TorchEngine(
            step,
            groups,
            config.optimizer,
            distributed,
            dtype,
            compiled=compiled,
            record=CudaRecorder() if graphs else None,
            notes=notes,
        )
    from vadv_dist.engines.deepspeed_engine import DeepSpeedEngine

    if distributed.world_size == 1:
        init_single_process(distributed.device)
    return DeepSpeedEngine(
        step,
        groups,
        config.engine,
        config.optimizer,
        distributed,
        dtype,
        batch_size=config.data.batch_size,
        accumulate=config.trainer.accumulate,
    )


def compile_layers(step: TrainingStep) -> None:
    """Let `torch.compile` generate the kernels of repeated layers: those of the encoder and of the teacher's blocks.

    Layers of one class share their code, and one code serves all lengths of texts, so few are compiled.
    """
    for module in step.modules():
        if isinstance(module, nn.ModuleList):
            for layer in module:
                layer.compile(dynamic=True, options=_dynamic_options())


def compile_fault(device: torch.device) -> str | None:
    """Why `torch.compile` fails on this machine, which may have no C compiler; None if it does not."""
    try:
        torch.compile(lambda x: 2 * x + 1, dynamic=True)(torch.ones(64, device=device))
    except Exception as error:  # torch has many classes for it, some of them of other libraries
        return first_line(error) or type(error).__name__
    return None


def _dynamic_options() -> dict[str, bool]:
    """Options for shapes that vary."""
    # This analysis is for fixed shapes. With others it fails on the teacher's blocks (an assertion, torch 2.11, H100).
    analysis = "triton.coalesce_tiling_analysis"
    import torch._inductor

    return {analysis: False} if analysis in torch._inductor.list_options() else {}


def uses_graphs(engine: EngineConfig, distributed: Distributed) -> bool:
    """Whether steps are recorded as CUDA graphs: on one GPU, without DeepSpeed.

    Raises:
        UserError: `engine.graphs` is on, and they cannot be.
    """
    possible = engine.kind != "deepspeed" and distributed.device.type == "cuda" and distributed.world_size == 1
    if engine.graphs == "on" and not possible:
        raise UserError(
            "engine.graphs is on, but steps are recorded only with engine.kind torch on one GPU. Set it to auto."
        )
    return possible and engine.graphs != "off"

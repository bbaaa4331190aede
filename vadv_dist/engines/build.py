"""The engine that a configuration names."""

from collections.abc import Sequence

from torch import nn

from vadv_dist.config import Config, EngineConfig
from vadv_dist.engines.distributed import Distributed, choose_dtype, init_single_process
from vadv_dist.engines.graphs import CudaRecorder
from vadv_dist.engines.protocol import Engine
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import UserError
from vadv_dist.tasks.base import ParameterGroup, TrainingStep


def build_engine(
    config: Config, step: TrainingStep, groups: Sequence[ParameterGroup], distributed: Distributed
) -> Engine:
    """Put a model with its objective, and its trained parameters, on the engine that the configuration names.

    `auto` is plain torch here: a run on several ranks replaces it by `choose_engine`'s choice first.
    """
    dtype = choose_dtype(config.trainer, distributed.device)
    if config.engine.kind != "deepspeed":
        graphs = uses_graphs(config.engine, distributed)
        on_gpu = distributed.device.type == "cuda"
        if on_gpu and config.engine.compile == "on":
            compile_layers(step)
        return TorchEngine(
            step,
            groups,
            config.optimizer,
            distributed,
            dtype,
            compiled=on_gpu and config.engine.compile != "off",
            record=CudaRecorder() if graphs else None,
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
                layer.compile(dynamic=True)


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

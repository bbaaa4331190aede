"""The engine that a configuration names."""

from collections.abc import Sequence

from vadv_dist.config import Config
from vadv_dist.engines.distributed import Distributed, choose_dtype, init_single_process
from vadv_dist.engines.protocol import Engine
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.tasks.base import ParameterGroup, TrainingStep


def build_engine(
    config: Config, step: TrainingStep, groups: Sequence[ParameterGroup], distributed: Distributed
) -> Engine:
    """Put a model with its objective, and its trained parameters, on the engine that the configuration names.

    `auto` is plain torch here: a run on several ranks replaces it by `choose_engine`'s choice first.
    """
    dtype = choose_dtype(config.trainer, distributed.device)
    if config.engine.kind != "deepspeed":
        return TorchEngine(step, groups, config.optimizer, distributed, dtype)
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

"""ZeRO's work on the host per step, counted in operations: on a GPU, each is a launch, and steps wait for launches."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import curve
from torch.utils._python_dispatch import TorchDispatchMode

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.engines.distributed import Distributed

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]


class Operations(TorchDispatchMode):
    """Counts operations, without those that only make a view."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations_of_a_step(config: Config) -> int:
    """Operations of training five steps less those of training four; what surrounds them is the same."""
    counts = []
    for steps in (4, 5):
        with Operations() as operations:
            curve(config, Distributed(), stop=steps)
        counts.append(operations.count)
    return counts[1] - counts[0]


@pytest.fixture(scope="module")
def config(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("operations") / "run.yaml"
    path.write_text(
        f"""
run: {{name: operations, storage: {path.parent}, seed: 5}}
data: {{sources: [{{uri: {made}}}], batch_size: 10}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32, dropout: 0, encoder_dropout: 0}}
trainer: {{use_gpu: false}}
"""
    )
    return load_config(path)


@pytest.fixture(scope="module")
def plain(config: Config) -> int:
    return operations_of_a_step(config)


# Through DeepSpeed's hooks, stages 1 and 2 took 769 operations (fp32) and 2,675 (bf16), and plain torch 568.
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_one_rank_takes_few_more_operations_than_plain_torch(
    config: Config, plain: int, stage: int, precision: str
) -> None:
    trainer = dataclasses.replace(config.trainer, precision=precision)
    engine = EngineConfig(kind="deepspeed", zero_stage=stage)
    zero = operations_of_a_step(dataclasses.replace(config, trainer=trainer, engine=engine))
    assert zero < 1.2 * plain


def test_stage_3_leaves_the_linear_layers_of_other_models_alone(config: Config) -> None:
    torch_linear = torch.nn.functional.linear
    before = curve(config, Distributed(), stop=3)[0]
    engine = EngineConfig(kind="deepspeed", zero_stage=3)
    curve(dataclasses.replace(config, engine=engine), Distributed(), stop=3)
    assert torch.nn.functional.linear is torch_linear
    assert curve(config, Distributed(), stop=3)[0] == before

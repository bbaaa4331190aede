import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from vadv_dist.config import EngineConfig, OptimizerConfig
from vadv_dist.engines.deepspeed_config import deepspeed_config, micro_batch_size
from vadv_dist.training.schedule import cosine_with_warmup


def test_after_warmup_the_rate_is_that_of_transformers() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=15, num_training_steps=100)
    for step in range(100):
        ours = cosine_with_warmup(step, num_steps=100, warmup_steps=15)
        if step >= 15:
            assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        else:
            assert ours == pytest.approx((step + 1) / 16)
        optimizer.step()
        theirs.step()


def test_the_rate_ends_at_zero_and_stays_there() -> None:
    assert cosine_with_warmup(100, num_steps=100, warmup_steps=15) == 0
    assert cosine_with_warmup(130, num_steps=100, warmup_steps=15) == 0
    assert cosine_with_warmup(0, num_steps=1, warmup_steps=0) == 1


@pytest.mark.parametrize(("batch", "world", "accumulate", "micro"), [(16, 2, 2, 4), (4, 8, 1, 1), (10, 3, 1, 4)])
def test_the_batch_arithmetic_of_deepspeed_adds_up(batch: int, world: int, accumulate: int, micro: int) -> None:
    config = deepspeed_config(
        EngineConfig(kind="deepspeed", zero_stage=2),
        OptimizerConfig(clip_norm=0.5),
        batch_size=batch,
        accumulate=accumulate,
        world_size=world,
        bf16=True,
        on_cpu=False,
    )
    assert micro_batch_size(batch, world, accumulate) == micro
    assert config["train_micro_batch_size_per_gpu"] == micro
    assert config["train_batch_size"] == micro * world * accumulate
    assert config["gradient_clipping"] == 0.5
    assert config["zero_optimization"]["stage"] == 2
    assert config["bf16"]["enabled"]

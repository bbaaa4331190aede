"""Every engine, on two CPU ranks, against plain torch on one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gloo_ranks import run_ranks
from ranks import NUM_STEPS, curve

from vadv_dist.config import load_config
from vadv_dist.engines.distributed import Distributed

STAGES = ("zero-0", "zero-1", "zero-2", "zero-3")
pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]


@pytest.fixture(scope="module")
def config_path(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "run.yaml"
    path.write_text(
        f"""
run: {{name: engines, storage: {path.parent}, seed: 5}}
data: {{sources: [{{uri: {made}}}], batch_size: 10}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32, dropout: 0, encoder_dropout: 0}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 2.0}}
trainer: {{use_gpu: false, accumulate: 2}}
"""
    )
    return path


@pytest.fixture(scope="module")
def two_ranks(config_path: Path) -> dict[str, Any]:
    out = config_path.parent / "answers.pt"
    run_ranks("ranks.py", config_path, out)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def one_rank(config_path: Path) -> Any:
    return curve(load_config(config_path), Distributed())


def assert_curves_agree(curve_a: list, curve_b: list, *, rel: float) -> None:
    assert len(curve_a) == len(curve_b) == NUM_STEPS
    for (loss_a, norm_a), (loss_b, norm_b) in zip(curve_a, curve_b, strict=True):
        assert loss_a == pytest.approx(loss_b, rel=rel)
        assert norm_a == pytest.approx(norm_b, rel=100 * rel)


def test_two_workers_follow_the_curve_of_one(one_rank, two_ranks) -> None:
    assert_curves_agree(two_ranks["torch"][0], one_rank[0], rel=1e-5)


@pytest.mark.parametrize("stage", [*STAGES, "zero-2-offload"])
def test_each_zero_stage_follows_the_torch_engine(config_path, two_ranks, one_rank, stage: str) -> None:
    short, final = curve(load_config(config_path), Distributed(), stop=1)[1], one_rank[1]
    moved = torch.stack([(final[name] - short[name]).abs().max() for name in final])
    assert (moved > 1e-3).float().mean() > 0.5  # the curve goes somewhere
    assert_curves_agree(two_ranks[stage][0], two_ranks["torch"][0], rel=1e-4)
    assert_curves_agree(two_ranks[stage][0], one_rank[0], rel=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_run_is_bit_identical(two_ranks, stage: str) -> None:
    _, weights, moments = two_ranks[stage]
    _, again, moments_again = two_ranks[f"{stage} continued"]
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert all(torch.equal(moments[name], moments_again[name]) for name in moments)


def test_checkpoints_of_all_engines_have_the_same_names_and_shapes(two_ranks) -> None:
    _, weights, moments = two_ranks["torch"]
    for stage in STAGES:
        assert {n: v.shape for n, v in two_ranks[stage][1].items()} == {n: v.shape for n, v in weights.items()}
        assert {n: v.shape for n, v in two_ranks[stage][2].items()} == {n: v.shape for n, v in moments.items()}


def test_another_engine_resumes_from_a_zero_3_checkpoint(two_ranks) -> None:
    plain, zero = two_ranks["torch after zero-3"][0], two_ranks["zero-1 after zero-3"][0]
    assert len(plain) == 5
    for (loss_a, _), (loss_b, _) in zip(plain, zero, strict=True):
        assert loss_a == pytest.approx(loss_b, rel=1e-4)


@pytest.mark.parametrize(("engine", "slowed_s"), [("torch", 0.12), ("0", 0.12), ("1", 0.12), ("2", 0.04)])
def test_the_slow_rank_is_the_one_that_computes_for_longer(two_ranks, engine: str, slowed_s: float) -> None:
    """Rank 1 is slowed in both passes of both micro-batches; ZeRO 2 reduces gradients in the backward pass."""
    fast_s, slow_s = torch.tensor(two_ranks[f"computed by {engine}"]).amin(
        dim=0
    )  # of eight steps: others load the CPUs
    assert slow_s > slowed_s
    assert fast_s < slow_s - slowed_s / 3


def test_ranks_that_wait_for_one_another_everywhere_are_not_compared(two_ranks) -> None:
    assert two_ranks["computed by 3"] == [[None, None]] * 8

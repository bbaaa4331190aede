"""The engine that `engine.kind: auto` chooses, against memory and traffic computed by hand."""

import dataclasses

import pytest

from vadv_dist.config import EngineConfig
from vadv_dist.engines.choice import Choice, choose_engine, sent_bytes
from vadv_dist.engines.memory import ModelSizes, memory_by_use

GB = 10**9
# A billion trained parameters and 2 GB of activations.
SIZES = ModelSizes(parameters=GB, trained=GB, activations=2 * GB)
TORCH = EngineConfig(kind="torch")
ZERO = {stage: EngineConfig(kind="deepspeed", zero_stage=stage) for stage in range(4)}


def choose(world_size: int, device_gb: float | None, *, bf16: bool = False, accumulate: int = 1) -> Choice:
    device = None if device_gb is None else int(device_gb * GB)
    return choose_engine(EngineConfig(), SIZES, world_size, bf16=bf16, accumulate=accumulate, device=device)


def test_one_device_runs_plain_torch() -> None:
    assert choose(1, 1).sentence == "torch, because there is one device"


def test_named_engine_is_kept_whatever_the_memory() -> None:
    choice = choose_engine(ZERO[3], SIZES, 4, bf16=True, accumulate=1, device=1)
    assert choice == Choice(ZERO[3])
    assert choice.sentence == "deepspeed ZeRO-3"


# Bytes by hand, in GB: weights, gradients, and the optimizer's part of a rank, for 4 ranks.
@pytest.mark.parametrize(
    ("engine", "bf16", "expected"),
    [
        (TORCH, False, (4, 4, 8)),
        (TORCH, True, (2, 4, 12)),
        (ZERO[0], True, (4, 4, 8)),
        (ZERO[1], False, (4, 8, 3)),
        (ZERO[1], True, (2, 4, 3)),
        (ZERO[2], True, (2, 1, 3)),
        (ZERO[3], True, (0.5, 0.5, 3)),
        (dataclasses.replace(ZERO[2], offload_optimizer=True), True, (2, 1, 0)),
    ],
)
def test_memory_of_each_engine(engine: EngineConfig, bf16: bool, expected: tuple[float, ...]) -> None:
    found = memory_by_use(engine, SIZES, 4, bf16=bf16)
    assert [value / GB for value in found.values()] == [*expected, 2]


# (n - 1) / n of: two passes over gradients (all-reduce); one over gradients and one over weights; …
@pytest.mark.parametrize(
    ("engine", "bf16", "accumulate", "expected"),
    [
        (TORCH, False, 1, 8),
        (TORCH, False, 4, 8),
        (TORCH, True, 1, 4),
        (ZERO[0], True, 1, 8),
        (ZERO[1], False, 1, 8),
        (ZERO[1], True, 4, 4),
        (ZERO[2], True, 1, 6),
        (ZERO[2], True, 4, 18),
        (ZERO[3], True, 1, 6),
        (ZERO[3], True, 2, 12),
    ],
)
def test_bytes_that_a_rank_sends(engine: EngineConfig, bf16: bool, accumulate: int, expected: float) -> None:
    assert sent_bytes(engine, GB, 4, bf16=bf16, accumulate=accumulate) / GB == expected * 3 / 4


def test_equal_traffic_is_decided_for_torch() -> None:
    choice = choose(2, 80)
    assert choice.engine == TORCH
    # 18 GB needed, of 80; both send 8 GB / 2.
    assert choice.reason == (
        "because on 2 ranks it needs about 16.76 GiB per device of 74.51 GiB, and a rank sends 3.73 GiB per step "
        "(deepspeed ZeRO-1: 3.73 GiB)"
    )


def test_larger_models_get_the_lowest_stage_that_fits() -> None:
    # By hand in fp32 on 4 ranks: torch 18 GB, ZeRO-1 17, ZeRO-2 11, ZeRO-3 7.
    found = {device: choose(4, device / 0.9).engine for device in (18.1, 17.9, 16.9, 10.9)}
    assert found == {18.1: TORCH, 17.9: ZERO[1], 16.9: ZERO[2], 10.9: ZERO[3]}
    assert "more than fits for torch (16.76 GiB) and deepspeed ZeRO-1 (15.83 GiB)" in choose(4, 16.9 / 0.9).reason


def test_accumulation_counts_against_stages_that_send_every_micro_batch() -> None:
    assert choose(4, 16.9 / 0.9, accumulate=8).engine == ZERO[2]  # 2 · 4 · 8 + 4 = 68 against 12 · 8 = 96
    assert choose(4, 100, bf16=True, accumulate=8).engine.stage in (0, 1)


def test_a_model_that_fits_nowhere_gets_the_engine_with_the_least_memory_and_a_warning() -> None:
    choice = choose(4, 5)
    assert (choice.engine, choice.fits) == (ZERO[3], False)
    assert choice.reason.endswith("about 6.52 GiB per device; that does not fit 4.66 GiB")


def test_unknown_memory_is_taken_as_enough() -> None:
    choice = choose(2, None)
    assert choice.engine == TORCH
    assert "if it fits its device" in choice.reason


def test_other_settings_of_the_engine_are_kept() -> None:
    engine = EngineConfig(graphs="off", compile="off")
    chosen = choose_engine(engine, SIZES, 2, bf16=True, accumulate=1, device=None).engine
    assert chosen == EngineConfig(kind="torch", graphs="off", compile="off")

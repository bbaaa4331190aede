"""A parameter and per-rank state of an objective are trained, saved and restored by every engine."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gloo_ranks import run_ranks
from objective_ranks import ENGINES, fit, load, variant

from vadv_dist.config import load_config
from vadv_dist.engines.distributed import Distributed
from vadv_dist.runs.checkpoint import list_checkpoints

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]


@pytest.fixture(scope="module")
def config_path(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("objectives") / "run.yaml"
    path.write_text(
        f"""
run: {{name: objectives, storage: {path.parent}, seed: 5}}
data: {{sources: [{{uri: {made}}}], batch_size: 40}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32, dropout: 0, encoder_dropout: 0}}
optimizer: {{lr: 1.0e-2, new_module_lr_factor: 1.0, warmup_steps: 0}}
trainer: {{use_gpu: false, checkpoint_every_epochs: 1, epochs: 2}}
"""
    )
    return path


@pytest.fixture(scope="module")
def two_ranks(config_path: Path) -> dict[str, Any]:
    out = config_path.parent / "answers.pt"
    run_ranks("objective_ranks.py", config_path, out)
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("name", ENGINES)
def test_a_parameter_of_the_objective_is_trained_saved_and_restored(two_ranks, name: str) -> None:
    whole, half, continued = two_ranks[name], two_ranks[f"{name} half"], two_ranks[f"{name} continued"]
    assert whole["scale"].shape == (3,)
    assert (whole["scale"] - 1).abs().min() > 1e-3
    assert not torch.equal(whole["scale"], half["scale"])
    assert torch.equal(whole["scale"], continued["scale"])
    assert torch.equal(whole["moment"], continued["moment"])


def test_engines_agree_on_a_parameter_of_the_objective(two_ranks) -> None:
    for name in ENGINES[1:]:
        torch.testing.assert_close(two_ranks[name]["scale"], two_ranks["torch"]["scale"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_each_rank_keeps_its_own_memory_bank(two_ranks, name: str) -> None:
    banks, half, continued = (two_ranks[f"{name}{part}"]["banks"] for part in ("", " half", " continued"))
    for rank in range(2):
        torch.testing.assert_close(banks[rank], continued[rank], rtol=0, atol=0, equal_nan=True)
    # In one epoch every row is seen by one rank, and each rank sees every second one.
    seen = torch.stack(half).isfinite()
    assert seen.sum(0).eq(1).all()
    assert sorted(seen.sum(1).tolist()) == [seen.shape[1] // 2, -(-seen.shape[1] // 2)]


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_loads_the_checkpoints_of_every_other(two_ranks, name: str, engine: str) -> None:
    loaded = two_ranks[f"{name} loaded"][engine]
    assert same(loaded["weights"], two_ranks[name]["weights"])
    assert same(loaded["moments"], two_ranks[name]["moments"])


@pytest.mark.parametrize("name", ENGINES)
def test_one_rank_loads_the_checkpoints_of_two(two_ranks, config_path: Path, name: str) -> None:
    base = load_config(config_path)
    loaded = load(variant(base, name, ""), "torch", Distributed())
    assert same(loaded["weights"], two_ranks[name]["weights"])
    assert same(loaded["moments"], two_ranks[name]["moments"])


@pytest.mark.parametrize("name", ENGINES)
def test_each_rank_writes_what_it_holds(two_ranks, config_path: Path, name: str) -> None:
    last = list_checkpoints(Path(load_config(config_path).run.storage) / name / "checkpoints")[-1]
    sizes = {file: entry["bytes"] for file, entry in last.files.items() if file.startswith("moments")}
    assert len(sizes) == (1 if name in ("torch", "zero-0") else 2)
    # Equal shares; headers and, in stage 3, padding make a small difference.
    assert max(sizes.values()) < 1.2 * min(sizes.values())


def test_memory_bank_is_resharded_for_another_number_of_ranks(two_ranks, config_path: Path) -> None:
    base = load_config(config_path)
    saved = list_checkpoints(Path(base.run.storage) / "zero-1" / "checkpoints")[-1].ranks()
    assert [state["objective.bank.value"].isnan().sum() > 0 for state in saved] == [True, True]
    # Two ranks wrote the run; it is complete, so that one rank loads it and trains no further.
    (bank,) = fit(variant(base, "zero-1", ""), Distributed())["banks"]
    stacked = torch.stack([state["objective.bank.value"] for state in saved])
    expected = stacked.nansum(0) / stacked.isfinite().sum(0)
    torch.testing.assert_close(bank, expected, equal_nan=True)

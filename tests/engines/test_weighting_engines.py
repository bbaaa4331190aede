"""Weightings under every engine, on two CPU ranks, against plain torch on one."""

import json
from pathlib import Path

import pytest
import torch
from gloo_ranks import run_ranks
from weighting_ranks import PLANS, fit, variant

from vadv_dist.config import load_config
from vadv_dist.engines.distributed import Distributed
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def config_path(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weighting") / "run.yaml"
    path.write_text(
        f"""
run: {{name: weighting, storage: {path.parent}, seed: 5}}
data: {{sources: [{{uri: {made}}}], batch_size: 30}}
teacher: {{width: 16, heads: 2, hidden: 16}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32, dropout: 0, encoder_dropout: 0}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 2.0, layer_decay: 0.8}}
trainer: {{use_gpu: false, checkpoint_every_epochs: 1, accumulate: 2, epochs: 3}}
telemetry: {{log_every_steps: 1}}
"""
    )
    return path


@pytest.fixture(scope="module")
def storage(config_path: Path) -> Path:
    """Folder of the runs of two ranks."""
    run_ranks("weighting_ranks.py", config_path, ",".join(f"{name}/{method}" for name, method in PLANS.items()))
    return config_path.parent


@pytest.fixture(scope="module")
def curves(config_path: Path) -> dict[str, list[dict]]:
    """Lines of one rank of plain torch, by method."""
    base, found = load_config(config_path), {}
    for method in dict.fromkeys(PLANS.values()):
        config = variant(base, "torch", method, "-alone")
        fit(config, Distributed())
        found[method] = steps(config_path.parent / f"torch-{method}-alone")
    return found


def steps(folder: Path) -> list[dict]:
    return [x for x in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if x["kind"] == "step"]


@pytest.mark.parametrize("engine", PLANS)
def test_two_ranks_of_each_engine_follow_the_curve_of_one(storage: Path, curves, engine: str) -> None:
    method = PLANS[engine]
    alone, together = curves[method], steps(storage / f"{engine}-{method}")
    assert len(alone) == len(together) == 9
    for a, b in zip(alone, together, strict=True):
        assert b["total"] == pytest.approx(a["total"], rel=1e-4)
        assert b["weights"] == pytest.approx(a["weights"], rel=1e-3)
    assert alone[0]["weights"] != alone[-1]["weights"]


@pytest.mark.parametrize("engine", PLANS)
def test_resumed_run_is_bit_identical(storage: Path, engine: str) -> None:
    whole, again = (
        list_checkpoints(RunFolder(storage / f"{engine}-{PLANS[engine]}{suffix}").checkpoints)[-1]
        for suffix in ("", "-cut")
    )
    assert whole.step == again.step == 9
    for first, second in ((whole.weights(), again.weights()), (whole.moments(), again.moments())):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.state()["weighting"] == again.state()["weighting"] != {}

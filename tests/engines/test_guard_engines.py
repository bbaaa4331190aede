"""The guard on two ranks of an engine, against plain torch on one."""

import json
from pathlib import Path

import pytest
import torch
from gloo_ranks import run_ranks
from guard_ranks import ENGINES
from weak_video import write_weak_video
from weighting_ranks import fit

from vadv_dist.config import load_config
from vadv_dist.engines.distributed import Distributed
from vadv_dist.runs.checkpoint import list_checkpoints

pytestmark = [pytest.mark.deepspeed, pytest.mark.slow]


@pytest.fixture(scope="module")
def storage(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the runs of two ranks, and of `alone` on one."""
    path = tmp_path_factory.mktemp("guard") / "run.yaml"
    data = write_weak_video(path.parent / "data")
    path.write_text(
        f"""
run: {{name: alone, storage: {path.parent}, seed: 5}}
data: {{sources: [{{uri: {data}}}], batch_size: 30}}
teacher: {{width: 16, heads: 2, hidden: 16, use_face: false}}
student: {{encoder: {made / "encoder"}, pretrained: false, hidden: 32, pooling: mean, dropout: 0, encoder_dropout: 0}}
objective: {{guard: on, ramp_epochs: 1}}
optimizer: {{lr: 3.0e-3, new_module_lr_factor: 1.0}}
trainer: {{use_gpu: false, checkpoint_every_epochs: 1, epochs: 3}}
telemetry: {{log_every_steps: 1}}
"""
    )
    fit(load_config(path), Distributed())
    run_ranks("guard_ranks.py", path, ",".join(ENGINES))
    return path.parent


def lines(folder: Path, kind: str) -> list[dict]:
    return [x for x in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if x["kind"] == kind]


@pytest.mark.parametrize("engine", ENGINES)
def test_two_ranks_follow_the_curve_of_one(storage: Path, engine: str) -> None:
    alone, together = (lines(storage / name, "epoch") for name in ("alone", engine))
    factors = [line["distillation"] for line in alone]
    assert factors[0] == 0
    assert len(set(factors)) > 2
    assert [line["distillation"] for line in together] == pytest.approx(factors, rel=1e-4)
    for a, b in zip(lines(storage / "alone", "step"), lines(storage / engine, "step"), strict=True):
        assert b["total"] == pytest.approx(a["total"], rel=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_resumed_run_is_bit_identical(storage: Path, engine: str) -> None:
    whole, again = (list_checkpoints(storage / f"{engine}{cut}" / "checkpoints")[-1] for cut in ("", "-cut"))
    first, second = whole.weights(), again.weights()
    assert whole.step == again.step
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.state()["guard"] == again.state()["guard"]

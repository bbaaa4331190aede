"""Precision of a run and notes on how it runs; GPUs and processors are made-up ones."""

import itertools
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vadv_dist.config import EngineConfig, load_config
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.choice import Choice
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.precision import Precision
from vadv_dist.launch.attempt import attempt_notes
from vadv_dist.launch.worker import train_rank
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import EpochLine, StartLine, StepLine

UUID = "5a1ec8f1-2f1d-7a2b-92f7-6a54b2d30c41"
SMI = f"""#!/bin/sh
case "$1" in
--query-gpu*) echo 'GPU-{UUID}, Tesla T4, 580.65.06' ;;
--query-compute-apps*)
    echo 'GPU-{UUID}, {os.getpid()}, python3, 512'
    echo 'GPU-{UUID}, 1234, /usr/bin/python3, 8192'
    echo 'GPU-0d7e1a52-94e2-3c0e-8f8a-cf9f4b7d1a10, 99, other, 8192' ;;
esac
"""
CHOICE = Choice(EngineConfig(kind="torch"), "because there is one device")


FP32 = Precision("fp32", "because this processor has no instructions for bf16")


def test_a_run_on_a_cpu_notes_its_engine_and_precision() -> None:
    assert attempt_notes(CHOICE, FP32, Distributed()) == [
        "engine: torch, because there is one device",
        "precision: fp32, because this processor has no instructions for bf16",
    ]


def test_an_engine_that_does_not_fit_is_a_warning() -> None:
    choice = Choice(EngineConfig(kind="deepspeed", zero_stage=3), "which does not fit", fits=False)
    notes = attempt_notes(choice, Precision("fp32"), Distributed())
    assert notes == ["warning: engine deepspeed ZeRO-3, which does not fit"]


def test_a_run_notes_who_else_uses_its_gpu(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = SimpleNamespace(name="Tesla T4", uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    notes = attempt_notes(CHOICE, Precision("fp32"), Distributed(device=torch.device("cuda", 0)))
    assert notes[1:] == ["warning: the GPU of rank 0 is also used by /usr/bin/python3 (pid 1234, 8.0 GiB)"]


@pytest.fixture
def wide(made: Path, tmp_path: Path) -> Path:
    """The configuration of a short run whose encoder is 256 wide."""
    shutil.copytree(made / "encoder", tmp_path / "encoder")
    encoder = tmp_path / "encoder" / "config.json"
    shape = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4}
    encoder.write_text(json.dumps(json.loads(encoder.read_text()) | shape))
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
run: {{name: run, storage: {tmp_path}, seed: 5}}
data: {{sources: [{{uri: {made}}}], batch_size: 16}}
objective: {{kind: none}}
student: {{encoder: {tmp_path / "encoder"}, pretrained: false, hidden: 32}}
optimizer: {{lr: 1.0e-3, new_module_lr_factor: 1.0, warmup_steps: 3}}
trainer: {{epochs: 3, use_gpu: false}}
telemetry: {{log_every_steps: 1}}
"""
    )
    return path


def train(path: Path, *overrides: str, steps: int | None = None) -> RunFolder:
    """Train a run, to its end or until it is asked to stop after some steps."""
    config = load_config(path, overrides)
    folder = RunFolder.of(config)
    folder.root.mkdir(exist_ok=True)
    folder.claim(config)
    asked = iter(range(steps)) if steps else itertools.count()
    train_rank(config, Distributed(), LocalWindows, asked=lambda: "SIGTERM" if next(asked, None) is None else "")
    return folder


def pretend_processor(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(instructions, True))


@pytest.mark.parametrize(("first", "then"), [(["avx512_bf16"], []), ([], ["avx512_bf16"])])
def test_a_run_keeps_its_precision_on_another_processor(
    wide: Path, monkeypatch, first: list[str], then: list[str]
) -> None:
    pretend_processor(monkeypatch, *first)
    whole = train(wide, "--run.name=whole")
    train(wide, steps=4)
    pretend_processor(monkeypatch, *then)
    folder = train(wide)
    kind = "bf16" if first else "fp32"
    notes = [line.notes[1] for line in folder.metrics_log().lines() if isinstance(line, StartLine)]
    assert len(notes) == 2
    assert notes[0].startswith(f"precision: {kind}, because this processor has ")
    assert notes[1] == f"precision: {kind}, in which the run began"
    one, other = (list_checkpoints(run.checkpoints)[-1].weights() for run in (whole, folder))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_losses_in_bf16_agree_with_those_in_fp32(wide: Path) -> None:
    losses, means = {}, {}
    for precision in ("fp32", "bf16"):
        options = (f"--run.name={precision}", f"--trainer.precision={precision}", "--trainer.epochs=12")
        lines = list(train(wide, *options, "--student.dropout=0").metrics_log().lines())
        losses[precision] = [line.terms["total"] for line in lines if isinstance(line, StepLine)]
        means[precision] = [line.train["total"] for line in lines if isinstance(line, EpochLine)]
    assert losses["bf16"][:24] == pytest.approx(losses["fp32"][:24], rel=0.01)
    assert means["bf16"] == pytest.approx(means["fp32"], rel=0.05)
    assert means["fp32"][-1] < 0.5 * means["fp32"][0]
    assert losses["bf16"] != losses["fp32"]

"""Notes on how an attempt runs; the GPU is a made-up one, whose facts torch and nvidia-smi would tell."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vadv_dist.config import Config, EngineConfig, TrainerConfig
from vadv_dist.engines.choice import Choice
from vadv_dist.engines.distributed import Distributed
from vadv_dist.launch.attempt import attempt_notes

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


def test_a_run_on_a_cpu_notes_its_engine() -> None:
    assert attempt_notes(CHOICE, Config(), Distributed()) == ["engine: torch, because there is one device"]


def test_an_engine_that_does_not_fit_is_a_warning() -> None:
    choice = Choice(EngineConfig(kind="deepspeed", zero_stage=3), "which does not fit", fits=False)
    assert attempt_notes(choice, Config(), Distributed()) == ["warning: engine deepspeed ZeRO-3, which does not fit"]


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_a_run_notes_an_old_gpu_and_who_else_uses_it(tmp_path: Path, monkeypatch, precision: str) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = SimpleNamespace(name="Tesla T4", uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    config = Config(trainer=TrainerConfig(precision=precision))
    notes = attempt_notes(CHOICE, config, Distributed(device=torch.device("cuda", 0)))
    slow = ["precision: fp32, because Tesla T4 does not compute in bf16"] if precision == "auto" else []
    shared = "warning: the GPU of rank 0 is also used by /usr/bin/python3 (pid 1234, 8.0 GiB)"
    assert notes[1:] == [*slow, shared]

"""The engine that a configuration names is tried before a run needs it."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.doctor import examine
from vadv_dist.engines.check import check_engine

CUDA_IMPORT = """
import torch
from vadv_dist.engines.deepspeed_engine import import_deepspeed
import_deepspeed(torch.device("cuda"))
from deepspeed.accelerator import get_accelerator
print(get_accelerator().device_name())
"""


def on_cpu(engine: EngineConfig, precision: str = "fp32") -> Config:
    config = load_config(None, ["--trainer.use_gpu=false", f"--trainer.precision={precision}"])
    return dataclasses.replace(config, engine=engine)


@pytest.mark.slow
@pytest.mark.deepspeed
def test_engine_imports_with_deepspeeds_cuda_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    # No GPU is needed: DeepSpeed believes what the variable says. Its CUDA accelerator has no shared-memory operation.
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    done = subprocess.run([sys.executable, "-c", CUDA_IMPORT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "cuda"


@pytest.mark.slow
@pytest.mark.deepspeed
@pytest.mark.parametrize(("stage", "precision"), [(1, "bf16"), (3, "fp32")])
def test_zero_trains_the_toy_model(stage: int, precision: str) -> None:
    works, found = check_engine(on_cpu(EngineConfig(kind="deepspeed", zero_stage=stage), precision))
    assert works, found
    assert found == f"CPU, {'bfloat16' if precision == 'bf16' else 'float32'}"


@pytest.mark.slow
@pytest.mark.deepspeed
def test_doctor_names_an_engine_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")  # but the run is to use the CPU
    finding = next(f for f in examine(on_cpu(EngineConfig(kind="deepspeed", zero_stage=2))) if f.what == "engine")
    assert finding.level == "fault"
    assert "deepspeed ZeRO-2" in finding.found
    assert "DS_ACCELERATOR" in finding.found


@pytest.mark.slow
def test_doctor_tests_the_torch_engine() -> None:
    finding = next(f for f in examine(on_cpu(EngineConfig(kind="torch"))) if f.what == "engine")
    assert (finding.level, finding.found) == ("ok", "torch trains a toy model: CPU, float32")


@pytest.mark.slow
def test_missing_gpu_is_reported() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    works, found = check_engine(load_config(None, ["--trainer.use_gpu=true"]))
    assert not works
    assert "trainer.use_gpu is true" in found

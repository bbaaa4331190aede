"""benchmarks/gpu.py trains without Ray and without DeepSpeed."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
BLOCKED = ("ray", "deepspeed", "optuna", "s3fs")


def run(*options: str) -> str:
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
sys.path.insert(0, {str(SCRIPT.parent)!r})
sys.argv = ["gpu.py", "--device", "cpu", "--tiny", *{options!r}]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_gpu_script_measures_the_product() -> None:
    printed = run("--batch-sizes", "16", "--minutes", "0.01")
    assert "DeepSpeed is not installed" in printed
    row = next(line for line in printed.splitlines() if line.startswith("| 16 | eager"))
    step, floor, ratio = (float(cell) for cell in row.split("|")[3:6])
    assert step > 0
    assert floor > 0
    assert ratio == pytest.approx(step / floor, rel=0.1, abs=0.01)
    assert "aten::" in printed  # the largest kernels
    assert "mosi.yaml with validation and checkpoints: 1 of 100 epochs" in printed


@pytest.mark.slow
def test_the_gpu_script_compares_losses_of_its_variants() -> None:
    printed = run("--check", "--variants", "eager", "graphs")
    assert "graphs against eager, 6 steps: mean loss 0.00% apart" in printed

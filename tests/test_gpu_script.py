"""benchmarks/gpu.py needs only torch and transformers."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
BLOCKED = ("ray", "deepspeed", "pyarrow", "jsonargparse", "optuna", "s3fs")


@pytest.mark.slow
def test_the_gpu_script_needs_only_torch_and_transformers() -> None:
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
sys.argv = ["gpu.py", "--device", "cpu", "--tiny", "--repeats", "1", "--batch-sizes", "64"]
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| 64 | eager"))
    step, floor, ratio = (float(cell) for cell in row.split("|")[3:6])
    assert step > 0
    assert floor > 0
    assert ratio == pytest.approx(step / floor, rel=0.1)

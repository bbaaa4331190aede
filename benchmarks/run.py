"""Measure every row of the speed table and print it.

    python benchmarks/run.py [--only NAME] [--quick]

Each benchmark runs in a process of its own, and alternates ours with what it is compared to. A bound that is missed is
printed as such and is no failure of the run; a benchmark that cannot run is (exit code 1).
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from measure import NUM_THREADS, Row, table

MODULES = {
    "joint-step": "joint_step",
    "whole-stack": "whole_stack",
    "windows": "window_reading",
    "ray-windows": "ray_windows",
    "memory": "rank_memory",
    "checkpoints": "checkpoints",
    "samples": "trainer_rate",
    "planning": "planning",
    "host-batches": "host_batches",
    "objects": "object_reading",
    "extract": "extract",
    "zero": "zero_step",
    "watching": "watching",
    "start": "start",
}
PREDICT = "predict"
_HERE = Path(__file__).parent


def main() -> int:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*MODULES, PREDICT], help="one benchmark")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: a look, not a measurement")
    parser.add_argument("--here", choices=MODULES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        rows = measure_here(options.here, options.quick)
        print("\n" + json.dumps([asdict(row) for row in rows]))
        return 0
    rows, failed = [], []
    for name in [options.only] if options.only else [*MODULES, PREDICT]:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            measured = measure_predict(options.quick) if name == PREDICT else measure_apart(name, options.quick)
        except subprocess.CalledProcessError as error:
            print(f"{name} did not run:\n{error.output}", file=sys.stderr)
            failed.append(name)
            continue
        rows += measured
        print(table(measured), file=sys.stderr, flush=True)
    print(table(rows))
    return 1 if failed else 0


def measure_here(name: str, quick: bool) -> list[Row]:
    """Run one benchmark in this process."""
    import torch

    torch.set_num_threads(NUM_THREADS)
    rows: list[Row] = importlib.import_module(MODULES[name]).measure(quick)
    return rows


def measure_apart(name: str, quick: bool) -> list[Row]:
    """Run one benchmark in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    printed = _python([str(_HERE / "run.py"), "--here", name, *(["--quick"] if quick else [])])
    return [Row(**row) for row in json.loads(printed.strip().splitlines()[-1])]


def measure_predict(quick: bool) -> list[Row]:
    """Run benchmarks/predict.py in both precisions and take its ratios.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    rows = []
    for precision, asked in (("fp32", 4.0), ("bf16", 4.0)):
        arguments = ["--repeats", "2" if quick else "5", "--precision", precision]
        printed = _python([str(_HERE / "predict.py"), *arguments])
        found = re.search(r"vadv .* (\d+ sentences/s), .* (\d+ sentences/s), ratio ([\d.]+), (.*)", printed)
        if found is None:
            raise subprocess.CalledProcessError(0, "predict.py", printed)
        rows.append(
            Row(
                f"sentences/s of vadv predict --precision {precision}, MiniLM encoder",
                'pipeline("text-classification", batch_size=32)',
                float(found[3]),
                asked,
                "at least",
                f"{found[1]} against {found[2]}; {found[4]}",
            )
        )
    return rows


def _python(arguments: list[str]) -> str:
    environment = {
        "OMP_NUM_THREADS": str(NUM_THREADS),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **os.environ,
        "RAY_ADDRESS": "local",  # what else runs on a cluster would be measured too
    }
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout + done.stderr)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

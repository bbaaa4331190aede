"""Every retrieval student alone, without a teacher, on made data, over seeds.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_students.py run --out students
    python benchmarks/retrieval_students.py table --out students

Each seed makes its own data and initial weights. All students have the same schedule and, but for `SMALLER`, their
defaults. The checkpoint is the best one on validation; the test split is opened for it alone. A run that is in the
folder already is not repeated, so several processes can share the work. Intervals are Student's t over seeds (95 %);
differences are paired by seed.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from vadv_dist.config import config_from_dict
from vadv_dist.data.synth import make_retrieval_dataset
from vadv_dist.evaluation.seeds_and_clips import seeds_and_clips
from vadv_dist.launch.driver import train
from vadv_dist.storage import write_json
from vadv_dist.training.evaluate import evaluate_run

NUM_CLIPS = 2400
RATE = 3e-3
# Widths for vectors of 128 and 64 values; the defaults are for images of 4,096. C-DCCA needs large batches.
SMALLER: dict[str, dict[str, int]] = {
    "dscmr": {"hidden": 256, "width": 128},
    "instance-loss": {"hidden": 256, "width": 128},
    "dclma": {"hidden": 128},
}
BATCHES = {"c-dcca": (512, 60)}  # rows, epochs
KINDS = ["eics", "dscmr", "c-cca", "c-dcca", "tnn-c-cca", "cctl", "instance-loss", "random", "dclma", "vae-cca"]


def main() -> None:
    """Train what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--out", type=Path, required=True, help="folder of results, one file per student and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 6)))
    parser.add_argument("--students", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--label-noise", type=float, default=0.4, help="share of wrong labels in train")
    parser.add_argument("--num-clips", type=int, default=NUM_CLIPS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "table":
        print_table(options.out, options.label_noise, options.students)
        return
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch) / "data"
            dataset = make_retrieval_dataset(
                data, num_clips=options.num_clips, seed=seed, label_noise=options.label_noise
            )
            for kind in options.students:
                path = result_path(options.out, options.label_noise, kind, seed)
                if not path.exists():
                    answer = measure(Path(scratch), data, kind, seed)
                    write_json(path, {**answer, "truth": dataset.manifest.truth})
                    print(kind, seed, answer["test"]["map"], f"{answer['seconds']:.0f} s", flush=True)


def measure(scratch: Path, data: Path, kind: str, seed: int) -> dict[str, Any]:
    """Train a student and score it on the test split."""
    began = time.perf_counter()
    rows, epochs = BATCHES.get(kind, (128, 20))
    raw = {
        "run": {"name": f"{kind}-{seed}", "storage": str(scratch), "seed": seed},
        "task": "retrieval",
        "data": {"sources": [{"uri": str(data)}], "batch_size": rows},
        "student": {"kind": kind, **SMALLER.get(kind, {})},
        "objective": "none",
        "optimizer": {"lr": RATE, "new_module_lr_factor": 1.0, "warmup_steps": 15},
        "trainer": {"epochs": epochs, "use_gpu": False},
        "engine": {"kind": "torch"},
    }
    result = train(config_from_dict(raw), Console(stderr=True, quiet=True))
    return {
        "student": kind,
        "seed": seed,
        "valid": result.validation,
        "test": evaluate_run(scratch / f"{kind}-{seed}", "test").metrics["student"],
        "threads": torch.get_num_threads(),
        "seconds": time.perf_counter() - began,
    }


def result_path(out: Path, label_noise: float, kind: str, seed: int) -> Path:
    """File of a result."""
    return out / f"{kind}-noise{label_noise:g}-seed{seed}.json"


def print_table(out: Path, label_noise: float, kinds: list[str]) -> None:
    """Print a row for each student, from the highest test mAP to the lowest."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for kind in kinds:
        paths = sorted(out.glob(f"{kind}-noise{label_noise:g}-seed*.json"))
        if paths:
            found[kind] = {one["seed"]: one for one in (json.loads(path.read_text()) for path in paths)}
    reference = {seed: one["test"]["map"] for seed, one in found.get("c-cca", {}).items()}
    print("| student | seeds | mAP | a → v | v → a | class mAP | minus C-CCA | seconds |")
    print("|---|---|---|---|---|---|---|---|")

    def mean(kind: str, key: str) -> float:
        return statistics.mean(one["test"][key] for one in found[kind].values())

    for kind in sorted(found, key=lambda one: -mean(one, "map")):
        scores = found[kind]
        interval = seeds_and_clips([one["test"]["map"] for one in scores.values()])
        paired = [one["test"]["map"] - reference[seed] for seed, one in scores.items() if seed in reference]
        gap = seeds_and_clips(paired) if kind != "c-cca" and len(paired) > 1 else None
        difference = "" if gap is None else f"{statistics.mean(paired):+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
        print(
            f"| {kind} | {len(scores)} | {mean(kind, 'map'):.3f} ± {(interval.high - interval.low) / 2:.3f} "
            f"| {mean(kind, 'map_a2v'):.3f} | {mean(kind, 'map_v2a'):.3f} | {mean(kind, 'map_class'):.3f} "
            f"| {difference} | {statistics.mean(one['seconds'] for one in scores.values()):.0f} |"
        )


if __name__ == "__main__":
    main()

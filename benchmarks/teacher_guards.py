"""What protects a student from a teacher that knows little, on four kinds of made data.

    OMP_NUM_THREADS=1 python benchmarks/teacher_guards.py run --out guards --seeds 1 2 3 4 5 6 7 8
    python benchmarks/teacher_guards.py tables --out guards

Each seed makes its own words, labels and videos, and trains a small student on them: alone, and beside its teacher with
ψ = β = 10 without a guard, with `objective.guard: on`, and with `objective.begin_epoch: 1` (the teacher is warm before
it teaches). Each run is scored as it is, and with `student.calibrate`, which does not change training: the line fitted
on validation is applied to the test predictions of the same run, if its slope is above 1. A run that is in the folder
already is not repeated.

Tables are of test MAE, whose data chose nothing. Gains are paired by seed, positive where a student errs less, with
95 % intervals of Student's t over seeds.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from vadv_dist.config import AloneObjectiveConfig, Config, SourceConfig, load_config
from vadv_dist.data.synth import make_dataset
from vadv_dist.evaluation.seeds_and_clips import seeds_and_clips
from vadv_dist.launch.driver import train
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import EpochLine
from vadv_dist.storage import write_json
from vadv_dist.training.evaluate import evaluate_run

RECIPE = Path(__file__).parents[1] / "jobs" / "configs" / "demo.yaml"
# Options of `vadv synth`: --video-noise 0.4 and --annotator-noise 0.8 (as noisy as MOSI) are its defaults.
KINDS: dict[str, dict[str, Any]] = {
    "strong": {},
    "helps": {"s_annot": 2.0},  # --annotator-noise 2: labels are noisier than the video
    "weak": {"s_video": 6.0},
    "nothing": {"informative_video": False},
}
# Kinds whose words and labels are the same, so that one student alone serves them.
WORDS = {"strong": "words", "weak": "words", "nothing": "words", "helps": "noisy-words"}
READERS: dict[str, dict[str, Any]] = {
    "ungated": {"guard": "off"},
    "guard": {"guard": "on"},
    "warm": {"guard": "off", "begin_epoch": 1},
}
ROWS = {
    "alone": ("alone", "mae"),
    "alone, calibrated": ("alone", "calibrated_mae"),
    "ungated": ("ungated", "mae"),
    "guard": ("guard", "mae"),
    "calibrate": ("ungated", "calibrated_mae"),
    "guard and calibrate": ("guard", "calibrated_mae"),
    "warm teacher": ("warm", "mae"),
    "warm teacher, calibrate": ("warm", "calibrated_mae"),
}
SMALL = {
    "visual_shape": (2, 1, 32),
    "face_shape": (1, 8),
}


def main() -> None:
    """Train what is missing, or print the tables of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--out", type=Path, required=True, help="folder of results, one file per run")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--readers", nargs="+", choices=("alone", *READERS), default=["alone", *READERS])
    parser.add_argument("--num-clips", type=int, default=1600, help="clips of each data set")
    options, overrides = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "tables":
        print_table(options.out, options.kinds)
        print_lines(options.out)
        return
    small = ["--teacher.use_face=false", "--data.batch_size=32", "--optimizer.lr=2e-3", "--optimizer.warmup_steps=25"]
    base = load_config(RECIPE, [*small, *overrides])
    for seed in options.seeds:
        for kind in options.kinds:
            for reader in options.readers:
                measure(base, options.out, kind, reader, seed, options.num_clips)


def measure(base: Config, out: Path, kind: str, reader: str, seed: int, num_clips: int) -> None:
    """Train and score one run, unless it has been."""
    path = result_path(out, kind, reader, seed)
    if path.exists():
        return
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        make_dataset(data, num_clips=num_clips, seed=seed, **SMALL, **KINDS[kind])
        alone = reader == "alone"
        config = dataclasses.replace(
            base,
            run=dataclasses.replace(base.run, name="run", storage=scratch, seed=seed),
            data=dataclasses.replace(base.data, sources=[SourceConfig(str(data))]),
            student=dataclasses.replace(base.student, encoder=str(data / "encoder"), calibrate="off"),
            objective=AloneObjectiveConfig() if alone else dataclasses.replace(base.objective, **READERS[reader]),
            trainer=dataclasses.replace(base.trainer, num_workers=0),
            engine=dataclasses.replace(base.engine, kind="torch", zero_stage=None),
        )
        train(config, Console(stderr=True, quiet=True))
        folder = RunFolder.of(config)
        scores = {split: evaluate_run(folder.root, split) for split in ("valid", "test")}
        valid, test = (pq.read_table(folder.root / f"predictions-{split}.parquet") for split in scores)
        epochs = [line for line in folder.metrics_log().lines() if isinstance(line, EpochLine)]
    slope, intercept = np.polyfit(column(valid, "text_logit"), column(valid, "label"), 1)
    prediction, label = column(test, "text_logit"), column(test, "label")
    video = scores["test"].metrics.get("video", {})
    answer = {
        "kind": kind, "reader": reader, "seed": seed, "mae": float(np.abs(prediction - label).mean()),
        "calibrated_mae": float(np.abs(slope * prediction + intercept - label).mean()), "slope": float(slope),
        "corr": scores["test"].metrics["student"]["corr"], "video_corr": video.get("corr"),
        "factors": [epoch.distillation for epoch in epochs], "clips": len(label),
        "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu,
    }  # fmt: skip
    write_json(path, answer)
    print(f"{kind}, {reader}, seed {seed}: {answer['mae']:.4f} ({answer['cpu_s']:.0f} s)", file=sys.stderr, flush=True)


def column(table: Any, name: str) -> Any:
    """A column as numbers, [R]."""
    return table[name].to_numpy().astype(np.float64)


def result_path(out: Path, kind: str, reader: str, seed: int) -> Path:
    """Where the result of a run lies."""
    return out / f"{WORDS[kind] if reader == 'alone' else kind}_{reader}_{seed}.json"


def print_table(out: Path, kinds: Sequence[str]) -> None:
    """Print one row per kind and student: its MAE, and what it gains over the student alone and over no guard."""
    print(
        "| data | student | seeds | MAE | Corr | gain over alone | over no guard | slope | factor |\n|---"
        + "|---" * 8
        + "|"
    )
    spent = 0.0
    for kind in kinds:
        runs = {
            reader: {seed: json.loads(path.read_text()) for seed in range(1, 1000)
                     if (path := result_path(out, kind, reader, seed)).exists()}
            for reader in ("alone", *READERS)
        }  # fmt: skip
        spent += sum(run["cpu_s"] for name, seeds in runs.items() for run in seeds.values())
        for title, (reader, key) in ROWS.items():
            seeds = sorted(runs[reader].keys() & runs["alone"].keys() & runs["ungated"].keys())
            if len(seeds) < 2:
                continue
            mae = [score(runs[reader][seed], key) for seed in seeds]
            cells = [
                "" if title == before else gain([runs[before][seed]["mae"] for seed in seeds], mae)
                for before in ("alone", "ungated")
            ]
            corr = statistics.fmean(runs[reader][seed]["corr"] for seed in seeds)
            slopes = [runs[reader][seed]["slope"] for seed in seeds] if key == "calibrated_mae" else []
            factors = [runs[reader][seed]["factors"][-1] for seed in seeds]
            ends = [factor for factor in factors if factor is not None]
            cells += [f"{statistics.fmean(values):.2f}" if values else "" for values in (slopes, ends)]
            row = [kind, title, str(len(seeds)), f"{statistics.fmean(mae):.3f}", f"{corr:.3f}", *cells]
            print("| " + " | ".join(row) + " |")
    print(f"\n{spent / 60:.0f} minutes of CPU time", file=sys.stderr)


def score(run: dict[str, Any], key: str) -> float:
    """A test MAE; that with calibration, if its slope is above 1, as in the product."""
    return float(run["mae"] if run["slope"] <= 1 else run[key])


def print_lines(out: Path) -> None:
    """Print what lines would do to all students, by their slope."""
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    for low, high in ((0.0, 0.9), (0.9, 1.0), (1.0, 9.0)):
        gains = [run["mae"] - run["calibrated_mae"] for run in runs if low < run["slope"] <= high]
        if gains:
            better = sum(gain > 0 for gain in gains)
            print(f"slopes {low} to {high}: {statistics.fmean(gains):+.3f}, better in {better} of {len(gains)} runs")


def gain(before: Sequence[float], after: Sequence[float]) -> str:
    """Mean reduction of the MAE, and its interval over seeds."""
    gains = [first - second for first, second in zip(before, after, strict=True)]
    interval = seeds_and_clips(gains)
    return f"{statistics.fmean(gains):+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


if __name__ == "__main__":
    main()

"""What the teacher gives the student on made data: three videos, the demo's and the paper's weights, and weightings.

    OMP_NUM_THREADS=1 python benchmarks/teacher_gain.py run --out gains --seeds 1 2 3 4 5 6 7 8
    python benchmarks/teacher_gain.py tables --out gains

Each seed makes its own words and labels, which the three videos share, and trains the student of
jobs/configs/demo.yaml on them: alone, and beside its teacher with each set of weights. All share order, initial weights
and schedule. A run that is in the folder already is not repeated, so several processes can share the work and a part of
it can be shown.

Tables are of test MAE. Differences are paired, positive where the student errs less than alone. Two 95 % intervals:
Student's t over seeds, which holds the choice of clips as well since each seed draws its own; and over the clips of all
seeds while the trained models stay as they are.
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
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console

from vadv_dist.config import AloneObjectiveConfig, Config, SourceConfig, load_config
from vadv_dist.config.weighting_sections import WeightingConfig
from vadv_dist.data.synth import make_dataset
from vadv_dist.evaluation.paired import Interval, paired_bootstrap
from vadv_dist.evaluation.seeds_and_clips import seeds_and_clips
from vadv_dist.launch.driver import train
from vadv_dist.storage import write_json
from vadv_dist.training.evaluate import evaluate_run

RECIPE = Path(__file__).parents[1] / "jobs" / "configs" / "demo.yaml"
NUM_CLIPS = 2400
VIDEOS: dict[str, dict[str, Any]] = {
    "strong": {},
    "weak": {"s_video": 6.0},
    "nothing new": {"informative_video": False},
}
DEMO = {"psi": 10.0, "delta": 1.0, "guard": "off"}
PAPER = {"psi": 1.0, "delta": 10.0, "guard": "off"}
READERS: dict[str, dict[str, Any]] = {
    "alone": {},
    "demo": DEMO,
    "paper": PAPER,
    # One weight of the demo's and the paper's exchanged at a time.
    "psi": {**PAPER, "psi": DEMO["psi"]},
    "delta": {**PAPER, "delta": DEMO["delta"]},
    # Weightings that know nothing of the five weights.
    **{
        weighting.kind: {**PAPER, "weighting": weighting()}
        for weighting in get_args(get_args(WeightingConfig)[0])
        if weighting.kind != "fixed"
    },
}
GAIN_READERS = ("alone", "demo", "paper")


def main() -> None:
    """Train what is missing, or print the tables of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "tables"))
    parser.add_argument("--out", type=Path, required=True, help="folder of results, one file per run")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 9)))
    parser.add_argument("--videos", nargs="+", choices=tuple(VIDEOS), default=list(VIDEOS))
    parser.add_argument("--readers", nargs="+", choices=tuple(READERS), default=list(GAIN_READERS))
    parser.add_argument("--num-clips", type=int, default=NUM_CLIPS, help="clips of each data set")
    options, overrides = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "run":
        base = load_config(RECIPE, overrides)
        for seed in options.seeds:
            for video in options.videos:
                for reader in options.readers:
                    measure(base, options.out, video, reader, seed, options.num_clips)
    else:
        for video in options.videos:
            print_table(options.out, video, [name for name in options.readers if name != "alone"])


def measure(base: Config, out: Path, video: str, reader: str, seed: int, num_clips: int) -> None:
    """Train and score one run, unless it has been."""
    if reader == "alone":
        video = "strong"  # it does not watch, and the words of all three are the same
    path = result_path(out, video, reader, seed)
    if path.exists():
        return
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        make_dataset(data, num_clips=num_clips, seed=seed, **VIDEOS[video])
        config = dataclasses.replace(
            base,
            run=dataclasses.replace(base.run, name="run", storage=scratch, seed=seed),
            data=dataclasses.replace(base.data, sources=[SourceConfig(str(data))]),
            student=dataclasses.replace(base.student, encoder=str(data / "encoder")),
            objective=AloneObjectiveConfig()
            if reader == "alone"
            else dataclasses.replace(base.objective, **READERS[reader]),
            trainer=dataclasses.replace(base.trainer, num_workers=0),
            engine=dataclasses.replace(base.engine, kind="torch"),
        )
        train(config, Console(stderr=True, quiet=True))
        run = Path(scratch) / "run"
        scores = {split: evaluate_run(run, split).to_json() for split in ("valid", "test")}
        tables = {split: pq.read_table(run / f"predictions-{split}.parquet") for split in scores}
        epochs = [line for line in map(json.loads, (run / "metrics.jsonl").open()) if line["kind"] == "epoch"]
    answer = {
        "video": video, "reader": reader, "seed": seed, "threads": torch.get_num_threads(),
        "test": {name: scores["test"][name] for name in ("student", "video") if name in scores["test"]},
        "valid_mae": scores["valid"]["student"]["mae"],
        "spread": spread_of(tables["valid"], tables["test"]),
        "end_weights": epochs[-1].get("weights"),
        "clip_id": tables["test"]["clip_id"].to_pylist(),
        "error": np.abs(logit(tables["test"]) - label(tables["test"])).tolist(),
        "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu,
    }  # fmt: skip
    write_json(path, answer)
    print(f"{video}, {reader}, seed {seed}: {answer['test']['student']['mae']:.4f} ({answer['wall_s']:.0f} s)",
          file=sys.stderr, flush=True)  # fmt: skip


def spread_of(valid: Any, test: Any) -> dict[str, float]:
    """How wide predictions spread on the test split, and the MAE once a line fitted on validation widens them."""
    slope, offset = np.polyfit(logit(valid), label(valid), 1)
    answer = {
        "predictions": float(logit(test).std()),
        "labels": float(label(test).std()),
        "slope": float(slope),
        "mae_after_line": float(np.abs(slope * logit(test) + offset - label(test)).mean()),
    }
    if "video_logit" in test.column_names:
        answer["video_logit"] = float(test["video_logit"].to_numpy().std())
    return answer


def logit(table: Any) -> Any:
    """Predictions of the student, [R]."""
    return table["text_logit"].to_numpy().astype(np.float64)


def label(table: Any) -> Any:
    """Labels, [R]."""
    return table["label"].to_numpy().astype(np.float64)


def result_path(out: Path, video: str, reader: str, seed: int) -> Path:
    """Where the result of a run lies."""
    return out / f"{(video if reader != 'alone' else 'words').replace(' ', '-')}_{reader}_{seed}.json"


def print_table(out: Path, video: str, readers: Sequence[str]) -> None:
    """Print one video's rows: the student alone, and each other reader with its gain over the same seeds."""
    results = {
        reader: {seed: json.loads(path.read_text()) for seed in range(1, 1000)
                 if (path := result_path(out, video, reader, seed)).exists()}
        for reader in ("alone", *readers)
    }  # fmt: skip
    alone = results["alone"]
    threads = sorted({run["threads"] for runs in results.values() for run in runs.values()})
    print(f"\n**{video} video** ({', '.join(map(str, threads))} thread)\n")
    print("| student | seeds | MAE | A2 | Corr | gain in MAE | over seeds | over clips | spread | after a line "
          "| video: MAE | A2 | spread |")  # fmt: skip
    print("|---" * 13 + "|")
    for reader, runs in results.items():
        seeds = sorted(runs.keys() & alone.keys())
        if len(seeds) < 2:
            continue
        cells = ["", "", ""]
        if reader != "alone":
            gains = [alone[s]["test"]["student"]["mae"] - runs[s]["test"]["student"]["mae"] for s in seeds]
            errors = [np.concatenate([r[s]["error"] for s in seeds]) for r in (alone, runs)]
            over_clips = paired_bootstrap(*errors, seed=0)
            cells = [f"{statistics.fmean(gains):+.3f}", bounds(seeds_and_clips(gains)), bounds(over_clips)]
        watched = ["", "", ""]
        if reader != "alone":
            watched = [mean_of(runs, seeds, "test", "video", name) for name in ("mae", "a2_has0")]
            watched.append(mean_of(runs, seeds, "spread", "video_logit"))
        scores = [mean_of(runs, seeds, "test", "student", name) for name in ("mae", "a2_has0", "corr")]
        spread = [mean_of(runs, seeds, "spread", name) for name in ("predictions", "mae_after_line")]
        print("| " + " | ".join([reader, str(len(seeds)), *scores, *cells, *spread, *watched]) + " |")
    for reader in readers:
        ended = [run["end_weights"] for run in results[reader].values() if run["end_weights"]]
        if ended:
            means = {name: statistics.fmean(weights[name] for weights in ended) for name in ended[0]}
            print(f"\n{reader} ends with {', '.join(f'{name} {value:.3g}' for name, value in means.items())}")
    per_seed = []
    for seed in sorted(alone):
        maes = [runs[seed]["test"]["student"]["mae"] for runs in results.values() if seed in runs]
        per_seed.append(f"{seed}: " + " ".join(f"{mae:.4f}" for mae in maes))
    print(f"\nby seed: {'; '.join(per_seed)}", flush=True)


def mean_of(runs: dict[int, Any], seeds: Sequence[int], kind: str, *names: str) -> str:
    """Mean over seeds of a number that each run has."""
    values = []
    for seed in seeds:
        value = runs[seed][kind]
        for name in names:
            value = value[name]
        values.append(value)
    mean = statistics.fmean(values)
    return f"{mean:.1%}" if names[-1] == "a2_has0" else f"{mean:.3f}"


def bounds(interval: Interval) -> str:
    """An interval's ends."""
    return f"{interval.low:+.3f} to {interval.high:+.3f}"


if __name__ == "__main__":
    main()

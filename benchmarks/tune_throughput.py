"""Trials per hour: packed in reused actors against one Ray Train run each, and how soon a trial takes its first step.

python benchmarks/tune_throughput.py --packed 20 --nested 20
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from vadv_dist.config import (
    Config,
    DataConfig,
    OptimizerConfig,
    RunConfig,
    SourceConfig,
    TeacherConfig,
    TelemetryConfig,
    TextStudentConfig,
    TrainerConfig,
)
from vadv_dist.config.search import SearchConfig
from vadv_dist.data.synth import make_dataset
from vadv_dist.tuning.events import Ended, Epoch
from vadv_dist.tuning.pools import Pool
from vadv_dist.tuning.tune_pool import TunePool

AT_A_TIME = 2


def main() -> None:
    """Time both ways over the same trainings, and print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--packed", type=int, default=20)
    parser.add_argument("--nested", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder) / "data", num_clips=150, seed=3)
        search = SearchConfig(concurrent=AT_A_TIME)
        packed = time_pool(TunePool(_config(folder, 0), search), folder, 0, options.packed)
        print(json.dumps(packed), file=sys.stderr)
        nested = time_pool(TunePool(_config(folder, 1), search), folder, 1, options.nested)
    ratio = packed["trials_per_hour"] / nested["trials_per_hour"]
    print(json.dumps({"at_a_time": AT_A_TIME, "packed": packed, "nested": nested, "ratio": round(ratio, 2)}, indent=2))


def time_pool(pool: Pool, folder: str, workers: int, count: int) -> dict[str, float]:
    """Run `count` trainings and return their rate, and the time from a trial's start to its first logged step."""
    began = time.time()
    started: dict[str, float] = {}
    with pool:
        ready = time.time()
        todo = [f"{'nested' if workers else 'packed'}-{number}" for number in range(count)]
        running = 0
        while todo or running:
            while todo and running < pool.slots:
                name = todo.pop(0)
                started[name] = time.time()
                config = _config(folder, workers)
                pool.start(name, dataclasses.replace(config, run=dataclasses.replace(config.run, name=name)))
                running += 1
            if (found := pool.next()) is None:
                continue
            key, event = found
            if isinstance(event, Epoch):
                pool.decide(key, True)
            else:
                assert isinstance(event, Ended), event
                running -= 1
        seconds = time.time() - ready
    waits = []
    for name, start in started.items():
        first = json.loads((Path(folder) / "runs" / name / "metrics.jsonl").read_text().splitlines()[0])
        waits.append(first["time"] - start)
    return {
        "trials": count,
        "cluster_start_s": round(ready - began, 2),
        "trials_per_hour": round(3600 * count / seconds, 1),
        "first_step_of_first_trials_s": round(max(waits[:AT_A_TIME]), 2),
        "first_step_of_later_trials_median_s": round(statistics.median(waits[AT_A_TIME:]), 2),
        "first_step_of_later_trials_max_s": round(max(waits[AT_A_TIME:]), 2),
    }


def _config(folder: str, workers: int) -> Config:
    return Config(
        run=RunConfig(storage=f"{folder}/runs"),
        data=DataConfig(sources=[SourceConfig(f"{folder}/data")], batch_size=16),
        teacher=TeacherConfig(width=16, heads=2, hidden=16),
        student=TextStudentConfig(encoder=f"{folder}/data/encoder", pretrained=False, hidden=32),
        optimizer=OptimizerConfig(lr=1e-3, new_module_lr_factor=1.0, warmup_steps=3),
        trainer=TrainerConfig(num_workers=workers, cpus_per_worker=1, epochs=4, use_gpu=False),
        telemetry=TelemetryConfig(log_every_steps=1),
    )


if __name__ == "__main__":
    main()

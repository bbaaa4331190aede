"""TPE against blind draws: the best validation MAE so far at equal trials, on made data, seed by seed.

python benchmarks/tune_samplers.py --space joint --trials 40 --seeds 5

Each seed makes its own data, weights and suggestions. Both samplers share all three and the first trial, the default.
No trial is stopped early, and a search runs its trials one after another, so the numbers do not depend on the machine's
load; two searches run at a time.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

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
from vadv_dist.errors import VadvError
from vadv_dist.evaluation.seeds_and_clips import seeds_and_clips
from vadv_dist.storage import remove_tree
from vadv_dist.tuning.events import failure_of
from vadv_dist.tuning.session import train_here
from vadv_dist.tuning.space import with_values
from vadv_dist.tuning.space_file import find_space, load_space
from vadv_dist.tuning.study import Study

SAMPLERS = ("tpe", "random")


def main() -> None:
    """Run all searches and print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="joint")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    began = time.time()
    seeds = range(1, options.seeds + 1)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            make_dataset(Path(folder) / f"data-{seed}", num_clips=options.clips, seed=seed)
        jobs = [(folder, vars(options), seed, sampler) for seed in seeds for sampler in SAMPLERS]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            curves = dict(zip([job[2:] for job in jobs], pool.starmap(best_so_far, jobs, chunksize=1), strict=True))
    print(json.dumps({**vars(options), **summary(curves), "wall_s": round(time.time() - began)}, indent=2))


def summary(curves: dict[tuple[int, str], list[float]]) -> dict[str, Any]:
    """Means over seeds after some trials, and Student's interval of how much less TPE errs than random draws."""
    seeds = sorted({seed for seed, _ in curves})
    length = len(curves[seeds[0], "tpe"])
    rows = []
    for count in sorted({1, *range(10, length, 10), length}):
        found = {sampler: [curves[seed, sampler][count - 1] for seed in seeds] for sampler in SAMPLERS}
        gains = [blind - tpe for tpe, blind in zip(found["tpe"], found["random"], strict=True)]
        rows.append(
            {
                "after_trials": count,
                **{sampler: round(statistics.fmean(values), 4) for sampler, values in found.items()},
                "gain_of_tpe": [round(value, 4) for value in seeds_and_clips(gains)],
            }
        )
    low, high = rows[-1]["gain_of_tpe"][1:]
    told = "TPE is better" if low > 0 else "random draws are better" if high < 0 else "no difference is shown"
    last = {sampler: [round(curves[seed, sampler][-1], 4) for seed in seeds] for sampler in SAMPLERS}
    wins = sum(tpe < blind for tpe, blind in zip(last["tpe"], last["random"], strict=True))
    return {"told": told, "seeds_where_tpe_is_better": wins, "mean_best_mae": rows, "best_mae_by_seed": last}


def best_so_far(folder: str, options: dict[str, Any], seed: int, sampler: str) -> list[float]:
    """Search once, and return the lowest validation MAE after each trial; a trial that fails adds nothing."""
    import torch

    torch.set_num_threads(1)
    base = Config(
        run=RunConfig(storage=f"{folder}/{sampler}-{seed}", seed=seed),
        data=DataConfig(sources=[SourceConfig(f"{folder}/data-{seed}")], batch_size=16),
        teacher=TeacherConfig(width=16, heads=2, hidden=16),
        student=TextStudentConfig(encoder=f"{folder}/data-{seed}/encoder", pretrained=False, hidden=32),
        optimizer=OptimizerConfig(lr=1e-3, new_module_lr_factor=1.0, warmup_steps=10),
        trainer=TrainerConfig(use_gpu=False, epochs=options["epochs"]),
        telemetry=TelemetryConfig(log_every_steps=1000),
    )
    space, _ = load_space(find_space(options["space"]), base)
    search = SearchConfig(num_trials=options["trials"], seed=seed, sampler=sampler)  # type: ignore[arg-type]
    study = Study.open(f"{folder}/{sampler}-{seed}.log", "search", space, base, search)
    maes: list[float] = []
    while (asked := study.ask()) is not None:
        config = with_values(base, asked.values)
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, name=str(asked.number)))
        try:
            result = train_here(config, lambda metrics: None)
        except VadvError as error:
            study.fail(asked, failure_of(error))
            maes.append(math.inf)
            continue
        maes.append(result.score)
        study.complete(asked, result)
        with contextlib.suppress(FileNotFoundError):
            remove_tree(Path(config.run.storage) / config.run.name)
    return list(itertools.accumulate(maes, min))


if __name__ == "__main__":
    main()

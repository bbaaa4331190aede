"""Train with weightings on two gloo processes for the tests of engines: not a test itself."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from gloo_ranks import join, leave

from vadv_dist.config import Config, EngineConfig, load_config
from vadv_dist.config.weighting_sections import (
    DwaWeightingConfig,
    FamoWeightingConfig,
    UncertaintyWeightingConfig,
    UwSoWeightingConfig,
)
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.build import build_engine
from vadv_dist.engines.distributed import Distributed
from vadv_dist.runs.folder import RunFolder
from vadv_dist.tasks.sentiment import SentimentTask
from vadv_dist.training.loop import Trainer
from vadv_dist.training.splits import Splits

WEIGHTINGS = {
    "famo": FamoWeightingConfig(),
    "uncertainty": UncertaintyWeightingConfig(),
    "dwa": DwaWeightingConfig(),
    "uw_so": UwSoWeightingConfig(temperature=1000.0),
}
# Each stage once, each way of knowing the losses once.
PLANS = {"torch": "famo", "zero-0": "uncertainty", "zero-1": "dwa", "zero-2": "uw_so", "zero-3": "famo"}


class EpochError(Exception):
    pass


def fit(config: Config, distributed: Distributed, *, cut: bool = False) -> None:
    """Train to the end, or to the end of the first epoch."""

    def on_epoch(metrics: dict[str, Any]) -> None:
        if cut:
            raise EpochError

    splits = Splits.open(config)
    task = SentimentTask(config, splits.train.sources)
    train, valid = LocalWindows(splits.train), LocalWindows(splits.valid)
    engine, folder = build_engine(config, task.step, task.parameter_groups(), distributed), RunFolder.of(config)
    if distributed.is_main:
        folder.claim(config)
    distributed.barrier()
    try:
        Trainer(
            config, task, engine, splits.train, splits.valid, train, valid, distributed, folder, on_epoch=on_epoch
        ).fit()
    except EpochError:
        pass  # cut off on purpose: the next call takes the run up
    finally:
        train.close()
        valid.close()


def variant(base: Config, name: str, method: str, suffix: str = "") -> Config:
    """The run of an engine and a method."""
    stage = name.removeprefix("zero-")
    engine = base.engine if name == "torch" else EngineConfig(kind="deepspeed", zero_stage=int(stage))
    return dataclasses.replace(
        base,
        run=dataclasses.replace(base.run, name=f"{name}-{method}{suffix}"),
        objective=dataclasses.replace(base.objective, weighting=WEIGHTINGS[method]),
        engine=engine,
    )


def main(config_path: str, plans: str) -> None:
    """Run every plan whole, and cut off after its first epoch and taken up again."""
    base, distributed = load_config(Path(config_path)), join()
    for plan in plans.split(","):
        name, method = plan.split("/")
        fit(variant(base, name, method), distributed)
        fit(variant(base, name, method, "-cut"), distributed, cut=True)
        fit(variant(base, name, method, "-cut"), distributed)
    leave()


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4])

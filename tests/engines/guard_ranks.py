"""Train guarded runs on two gloo processes for the tests of the guard: not a test itself."""

import dataclasses
import sys
from pathlib import Path

from gloo_ranks import join, leave
from weighting_ranks import fit

from vadv_dist.config import EngineConfig, load_config
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.folder import RunFolder

ENGINES = {"torch": EngineConfig(kind="torch"), "zero-1": EngineConfig(kind="deepspeed", zero_stage=1)}


def main(config_path: str, engines: str) -> None:
    """Train with each engine whole, and cut off after its first epoch and resumed."""
    base, distributed = load_config(Path(config_path)), join()
    for name in engines.split(","):
        for suffix, cuts in (("", [False]), ("-cut", [True, False])):
            run = dataclasses.replace(base.run, name=f"{name}{suffix}")
            config = dataclasses.replace(base, run=run, engine=ENGINES[name])
            for cut in cuts:
                fit(config, distributed, cut=cut)
            last = last_checkpoint(RunFolder.of(config).checkpoints)
            assert last is not None
            assert 0 < last.state()["guard"] <= 1
    leave()


if __name__ == "__main__":
    main(sys.argv[3], sys.argv[4])

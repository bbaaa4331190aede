"""How a search over configurations goes: the `search` part of a space file, and the only place with its defaults."""

from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.sections import WeightingName, _require


@dataclass(frozen=True)
class SearchConfig:
    """Settings of a search.

    Args:
        num_trials: trials of the whole search, the default one, stopped ones and failed ones included.
        seed: decides what is suggested.
        sampler: `tpe` learns from earlier trials, `random` does not.
        pruner: `asha` stops trials whose validation MAE falls behind at its rungs; `none` lets every trial end.
        min_epochs: epochs of the first rung.
        reduction: a rung lets one in so many go on to the next, which is so many times as long.
        storage: Optuna's storage: an RDB URL, a path that ends in `.log` for a journal file, or null for a SQLite file
            in the study's folder. `$NAME` is replaced from the environment, so that no password stands in a file.
        concurrent: trials at a time on Ray; null takes as many as the cluster holds.
        cpus_per_trial, gpus_per_trial: of a packed trial, which trains inside one process; a fraction of a GPU is
            shared. Null for GPUs takes one where the cluster has any and `trainer.use_gpu` is not false.
        max_failures: failed trials in a row after which the search stops.
        top: best trials that are run again.
        seeds: seeds under which the default and the best trials are run again.
        rivals: values of `objective.weighting` that are trained before the first trial, under those seeds too. They may
            win; and the weights at which the best of them ended begin a trial, where the space has weights.
        leave_one_out: run the winner again without each term of the objective.
    """

    num_trials: int = 30
    seed: int = 1
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["asha", "none"] = "asha"
    min_epochs: int = 1
    reduction: int = 4
    storage: str | None = None
    concurrent: int | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float | None = None
    max_failures: int = 5
    top: int = 3
    seeds: int = 3
    rivals: list[WeightingName] = field(default_factory=list)
    leave_one_out: bool = True

    def __post_init__(self) -> None:
        lows = {"num_trials": 1, "seed": 0, "min_epochs": 1, "reduction": 2, "cpus_per_trial": 1, "max_failures": 1}
        # With fewer than three seeds no interval is worth the name.
        for name, low in {**lows, "top": 1, "seeds": 3}.items():
            _require(getattr(self, name) >= low, f"search.{name}", getattr(self, name), f"at least {low}")
        _require(self.concurrent is None or self.concurrent >= 1, "search.concurrent", self.concurrent, "at least 1")
        _require(len(set(self.rivals)) == len(self.rivals), "search.rivals", self.rivals, "each of them once")
        gpus = self.gpus_per_trial
        _require(
            gpus is None or 0 <= gpus <= 1, "search.gpus_per_trial", gpus, "a share of one GPU from 0 to 1, or null"
        )

"""How a search over configurations goes: the `search` part of a space file, and the only place with its defaults."""

from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.checks import Section, require
from vadv_dist.config.objective_sections import WeightingConfig


@dataclass(frozen=True)
class SearchConfig(Section):
    """Settings of a search.

    Args:
        num_trials: trials of the whole search, the default one, stopped ones and failed ones included.
        seed: decides what is suggested.
        objectives: metrics of the student on the validation clips, `student_parameters` or `wall_time_s`; the first is
            the task's score, which empty stands for. With several, the answer holds their Pareto front, and no trial is
            stopped early.
        sampler: `tpe` learns from earlier trials; `nsga2` breeds generations of them; `random` draws blindly.
        generation: trials of a generation of `nsga2`.
        scheduler: `asha` stops trials whose validation score falls behind at its rungs; `pbt` trains all trials side by
            side as a population, whose worst go on from the best with other values; `none` lets every trial end.
        interval: epochs after which a population's worst are replaced.
        quantile: share of a population that is replaced, and of those that are copied.
        resample: probability with which a copied value is drawn anew instead of moved a little.
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
    objectives: list[str] = field(default_factory=list)
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    generation: int = 10
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    interval: int = 1
    quantile: float = 0.25
    resample: float = 0.25
    min_epochs: int = 1
    reduction: int = 4
    storage: str | None = None
    concurrent: int | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float | None = None
    max_failures: int = 5
    top: int = 3
    seeds: int = 3
    rivals: list[WeightingConfig] = field(default_factory=list)
    leave_one_out: bool = True

    def __post_init__(self) -> None:
        lows = {"num_trials": 1, "seed": 0, "min_epochs": 1, "reduction": 2, "cpus_per_trial": 1, "max_failures": 1}
        # With fewer than three seeds no interval is worth the name.
        for name, low in {**lows, "top": 1, "seeds": 3, "generation": 2, "interval": 1}.items():
            require(getattr(self, name) >= low, f"search.{name}", getattr(self, name), f"at least {low}")
        require(self.concurrent is None or self.concurrent >= 1, "search.concurrent", self.concurrent, "at least 1")
        names = self.objectives
        require(len(set(names)) == len(names), "search.objectives", names, "each of them once")
        if self.scheduler == "pbt":
            require(self.num_trials >= 2, "search.num_trials", self.num_trials, "at least 2 for search.scheduler: pbt")
            require(len(names) <= 1, "search.objectives", names, "one where search.scheduler is pbt")
        require(0 < self.quantile <= 0.5, "search.quantile", self.quantile, "a share above 0 and up to 0.5")
        require(0 <= self.resample <= 1, "search.resample", self.resample, "a probability")
        require(len(set(self.rivals)) == len(self.rivals), "search.rivals", self.rivals, "each of them once")
        gpus = self.gpus_per_trial
        require(
            gpus is None or 0 <= gpus <= 1, "search.gpus_per_trial", gpus, "a share of one GPU from 0 to 1, or null"
        )

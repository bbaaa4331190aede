"""The `search` section of a space file, with all its defaults."""

from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.checks import Section, require
from vadv_dist.config.objective_sections import WeightingConfig


@dataclass(frozen=True)
class SearchConfig(Section):
    """Settings of a search.

    Args:
        num_trials: number of trials, including the default, stopped and failed ones.
        seed: seed of the sampler.
        objectives: metrics of the student on the validation clips, `student_parameters` or `wall_time_s`; the first
            must be the task's score, and an empty list means only that. With several, the result contains their Pareto
            front, and no trial is stopped early.
        sampler: `tpe` learns from earlier trials; `nsga2` is a genetic algorithm; `random` samples independently.
        generation: trials per generation of `nsga2`.
        scheduler: `asha` stops trials whose validation score falls behind at a rung; `pbt` trains all trials at the
            same time as a population, and replaces the worst by perturbed copies of the best; `none` runs every trial
            to the end.
        interval: epochs between replacements in a population.
        quantile: share of a population that is replaced, and share that is copied from.
        resample: probability that a copied value is sampled anew instead of perturbed.
        min_epochs: epochs of the first rung.
        reduction: one in this many trials is promoted to the next rung, which is this many times as long.
        storage: Optuna's storage: an RDB URL, a path that ends in `.log` for a journal file, or null for a SQLite file
            in the study's folder. `$NAME` is expanded, so that no password has to be written to a file.
        concurrent: maximum number of concurrent trials on Ray; null uses the whole cluster.
        cpus_per_trial, gpus_per_trial: resources of a trial that trains in one process; trials can share a GPU. Null
            for GPUs uses one if the cluster has any and `trainer.use_gpu` is not false.
        max_failures: consecutive failed trials after which the search stops.
        top: number of best trials to repeat.
        seeds: number of seeds with which the default and the best trials are repeated.
        rivals: values of `objective.weighting` to train before the first trial, with the same seeds. One of them can
            win. If the space contains weights, one trial starts from the final weights of the best rival.
        leave_one_out: repeat the winner without each term of the objective.
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
        # Fewer than three seeds do not give a useful interval.
        for name, low in {**lows, "top": 1, "seeds": 3, "generation": 2, "interval": 1}.items():
            require(getattr(self, name) >= low, f"search.{name}", getattr(self, name), f"at least {low}")
        require(self.concurrent is None or self.concurrent >= 1, "search.concurrent", self.concurrent, "at least 1")
        names = self.objectives
        require(len(set(names)) == len(names), "search.objectives", names, "unique entries")
        if self.scheduler == "pbt":
            require(self.num_trials >= 2, "search.num_trials", self.num_trials, "at least 2 for search.scheduler: pbt")
            require(len(names) <= 1, "search.objectives", names, "a single one, because search.scheduler is pbt")
        require(0 < self.quantile <= 0.5, "search.quantile", self.quantile, "a share above 0 and up to 0.5")
        require(0 <= self.resample <= 1, "search.resample", self.resample, "a probability")
        require(len(set(self.rivals)) == len(self.rivals), "search.rivals", self.rivals, "unique entries")
        gpus = self.gpus_per_trial
        require(
            gpus is None or 0 <= gpus <= 1, "search.gpus_per_trial", gpus, "a share of one GPU from 0 to 1, or null"
        )

"""The `search` section of a space file, with all its defaults."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import NUMBER, SETTINGS, Count, Natural, Share, require
from vadv_dist.config.weighting_sections import WeightingConfig


@dataclass(frozen=True, config=SETTINGS)
class SearchConfig:
    """Settings of a search."""

    num_trials: Count = 30
    """Number of trials, including the default, stopped and failed ones."""
    seed: Natural = 1
    """Seed of the sampler."""
    objectives: list[str] = Field(default_factory=list)
    """Metrics of the student on the validation clips, `student_parameters` or `wall_time_s`; the first must be the
    task's score, and an empty list means only that. With several, the result contains their Pareto front, and no trial
    is stopped early."""
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"
    """`tpe` learns from earlier trials; `nsga2` is a genetic algorithm; `random` samples independently."""
    generation: Annotated[int, Field(ge=2)] = 10
    """Trials per generation of `nsga2`."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """`asha` stops trials whose validation score falls behind at a rung; `pbt` trains all trials at the same time as a
    population, and replaces the worst by perturbed copies of the best; `none` runs every trial to the end."""
    interval: Count = 1
    """Epochs between replacements in a population."""
    quantile: Annotated[float, Field(gt=0, le=0.5), NUMBER] = 0.25
    """Share of a population that is replaced, and share that is copied from."""
    resample: Share = 0.25
    """Probability that a copied value is sampled anew instead of perturbed."""
    min_epochs: Count = 1
    """Epochs of the first rung."""
    reduction: Annotated[int, Field(ge=2)] = 4
    """One in this many trials is promoted to the next rung, which is this many times as long."""
    storage: str | None = None
    """Optuna's storage: an RDB URL, a path that ends in `.log` for a journal file, or null for a SQLite file in the
    study's folder. `$NAME` is expanded, so that no password has to be written to a file."""
    concurrent: Count | None = None
    """Maximum number of concurrent trials on Ray; null uses the whole cluster."""
    cpus_per_trial: Count = 1
    """CPUs of a trial that trains in one process."""
    gpus_per_trial: Share | None = None
    """GPUs of a trial that trains in one process; trials can share a GPU. Null uses one if the cluster has any and
    `trainer.use_gpu` is not false."""
    max_failures: Count = 5
    """Consecutive failed trials after which the search stops."""
    top: Count = 3
    """Number of best trials to repeat."""
    seeds: Annotated[int, Field(ge=3)] = 3  # fewer do not give a useful interval
    """Number of seeds with which the default and the best trials are repeated."""
    rivals: list[WeightingConfig] = Field(default_factory=list)
    """Values of `objective.weighting` to train before the first trial, with the same seeds. One of them can win. If the
    space contains weights, one trial starts from the final weights of the best rival."""
    leave_one_out: bool = True
    """Repeat the winner without each term of the objective."""

    def __post_init__(self) -> None:
        names = self.objectives
        require(len(set(names)) == len(names), "objectives", names, "unique entries")
        if self.scheduler == "pbt":
            require(self.num_trials >= 2, "num_trials", self.num_trials, "at least 2 for search.scheduler: pbt")
            require(len(names) <= 1, "objectives", names, "a single one, because search.scheduler is pbt")
        require(len(set(self.rivals)) == len(self.rivals), "rivals", self.rivals, "unique entries")

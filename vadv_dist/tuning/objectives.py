"""What a search may search for: how each objective is read from a run's result, and which way is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from vadv_dist.config.search import SearchConfig
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import METRICS
from vadv_dist.reporting.words import decimals, score, whole
from vadv_dist.runs.records import RunResult
from vadv_dist.tasks import Task


@dataclass(frozen=True)
class Objective:
    """One objective.

    Args:
        key: its name in `search.objectives`.
        title: what a person calls it.
        lower_is_better: which way is better.
        worst: what counts where a run has no such number (the correlation of a student that always says the same).
        unit: as `Metric.unit`.
    """

    key: str
    title: str
    lower_is_better: bool
    worst: float
    unit: str = ""

    @property
    def heading(self) -> str:
        """Its title, with an arrow to where it is better."""
        return f"{self.title} {'↓' if self.lower_is_better else '↑'}"

    def read(self, result: RunResult) -> float:
        """Its value in a run's result: of the checkpoint that is kept, the best one."""
        if self.key == "student_parameters":
            return float(result.parameters["student"])
        if self.key == "wall_time_s":
            return result.wall_time_s
        value = result.validation.get(self.key)
        return self.worst if value is None or not math.isfinite(value) else float(value)

    def text(self, value: float) -> str:
        """A value as it is written in a table."""
        if self.key == "student_parameters":
            return whole(int(value))
        if self.key == "wall_time_s":
            return f"{decimals(value)} s"
        return f"{value:.4f}" if self.unit == "label" else score(value, percent=self.unit == "share")

    def told(self, cost: float) -> str:
        """Title and value of a cost, for a line of progress."""
        return f"{self.title} {score(self.value(cost), percent=self.unit == 'share')}"

    def of_cost(self, cost: float) -> str:
        """The value of a cost as it is written in a table."""
        return self.text(self.value(cost))

    def value(self, cost: float) -> float:
        """The value whose cost this is."""
        return cost if self.lower_is_better else -cost


_METRICS = (
    Objective(m.key, m.title, m.lower_is_better, math.inf if m.worst is None else m.worst, m.unit)
    for m in METRICS.values()
)
_COSTS = (
    Objective("student_parameters", "Student’s parameters", lower_is_better=True, worst=math.inf),
    Objective("wall_time_s", "Time of training", lower_is_better=True, worst=math.inf),
)
BY_KEY = {objective.key: objective for objective in (*_METRICS, *_COSTS)}


def with_objectives(search: SearchConfig, task: Task, sources: Sources) -> SearchConfig:
    """The search with its objectives: the task's score, or those that were given.

    Raises:
        UserError: an unknown one, one that the labels of the validation clips do not define, or another one first.
    """
    score, costs = task.description.score, [cost.key for cost in _COSTS]
    ends = [value for end in ("label_min", "label_max") for _, value in sources.label_statistic("valid", end)]
    absent = task.absent(ends or None)
    existing = [metric.key for metric in task.description.metrics if metric.key not in absent]
    keys = search.objectives or [score]
    for key in keys:
        if key not in (*existing, *costs):
            reason = absent.get(key, "there is no such objective")
            raise UserError(
                f"search.objectives has {key}, which does not exist for {sources.datasets[0].root}: {reason}. Choose "
                f"from {', '.join((*existing, *costs))}."
            )
    if keys[0] != score:
        raise UserError(
            f"search.objectives begins with {keys[0]}, expected {score}, which chooses checkpoints and the winner. "
            "Put it first."
        )
    return replace(search, objectives=keys)


def directions(keys: Sequence[str]) -> list[Literal["minimize", "maximize"]]:
    """Optuna's direction of each objective."""
    return ["minimize" if BY_KEY[key].lower_is_better else "maximize" for key in keys]


def values_of(result: RunResult, keys: Sequence[str]) -> list[float]:
    """Values of objectives in a run's result.json."""
    return [BY_KEY[key].read(result) for key in keys]

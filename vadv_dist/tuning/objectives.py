"""Objectives of a search: metrics of the student and costs, read from a run's result."""

import math
from dataclasses import asdict, dataclass, replace

from vadv_dist.config.search import SearchConfig
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.evaluation import classification, label_scale, retrieval
from vadv_dist.evaluation.description import Metric
from vadv_dist.reporting.words import decimals, score, whole
from vadv_dist.runs.records import RunResult
from vadv_dist.tasks import Task


@dataclass(frozen=True)
class Objective(Metric):
    """A metric or a cost that a search can optimise; beside those of `Metric`, its unit can be `count` or `s`."""

    def read(self, result: RunResult) -> float:
        """Its value at the run's best checkpoint; the worst possible value if the run has none."""
        if self.key == "student_parameters":
            return float(result.parameters["student"])
        if self.key == "wall_time_s":
            return result.wall_time_s
        value = result.validation.get(self.key)
        if value is None or not math.isfinite(value):
            return math.inf if self.worst is None else self.worst
        return float(value)

    def value(self, cost: float) -> float:
        """The value with this cost."""
        return self.cost(cost)

    def text(self, value: float) -> str:
        """A value in a table."""
        if self.unit == "count":
            return whole(int(value))
        if self.unit == "s":
            return f"{decimals(value)} s"
        return f"{value:.4f}" if self.unit == "label" else score(value, percent=self.percent)

    def cost_text(self, cost: float) -> str:
        """The value with this cost, in a table."""
        return self.text(self.value(cost))

    def phrase(self, cost: float) -> str:
        """Title and value with this cost, in a line of progress."""
        return f"{self.title} {score(self.value(cost), percent=self.percent)}"


_COSTS = (
    Objective("student_parameters", "Student parameters", unit="count", lower_is_better=True, worst=None),
    Objective("wall_time_s", "Training time", unit="s", lower_is_better=True, worst=None),
)
# The metrics of every task, and the costs.
_METRICS = (*label_scale.METRICS.values(), *retrieval.METRICS, *classification.METRICS)
BY_KEY = {each.key: each for each in (*(Objective(**asdict(metric)) for metric in _METRICS), *_COSTS)}


def with_objectives(search: SearchConfig, task: Task, sources: Sources) -> SearchConfig:
    """The settings with their objectives: the task's score if none were given.

    Raises:
        UserError: an unknown objective, one that the validation labels do not define, or another one than the task's
            score in the first place.
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

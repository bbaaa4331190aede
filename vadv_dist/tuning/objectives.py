"""What a search may search for: how each objective is read from a run's result, and which way is better."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.evaluation.label_scale import METRICS
from vadv_dist.reporting.words import decimals, score, whole
from vadv_dist.tasks.sentiment import label_scale


@dataclass(frozen=True)
class Objective:
    """One objective.

    Args:
        key: its name in `search.objectives`.
        title: what a person calls it.
        lower_is_better: which way is better.
        worst: what counts where a run has no such number (the correlation of a student that always says the same).
        percent: whether it is written as a percentage.
    """

    key: str
    title: str
    lower_is_better: bool
    worst: float
    percent: bool = False

    @property
    def heading(self) -> str:
        """Its title, with an arrow to where it is better."""
        return f"{self.title} {'↓' if self.lower_is_better else '↑'}"

    def read(self, result: Mapping[str, Any]) -> float:
        """Its value in a run's result.json: of the checkpoint that is kept, the best by validation MAE."""
        if self.key == "student_parameters":
            return float(result["parameters"]["student"])
        if self.key == "wall_time_s":
            return float(result["wall_time_s"])
        value = result["validation"].get(self.key)
        return self.worst if value is None or not math.isfinite(value) else float(value)

    def text(self, value: float) -> str:
        """A value as it is written in a table."""
        if self.key == "student_parameters":
            return whole(int(value))
        if self.key == "wall_time_s":
            return f"{decimals(value)} s"
        return f"{value:.4f}" if self.key == "mae" else score(value, percent=self.percent)


_METRICS = (Objective(m.key, m.title, m.lower_is_better, m.worst, m.percent) for m in METRICS.values())
_COSTS = (
    Objective("student_parameters", "Student’s parameters", lower_is_better=True, worst=math.inf),
    Objective("wall_time_s", "Time of training", lower_is_better=True, worst=math.inf),
)
BY_KEY = {objective.key: objective for objective in (*_METRICS, *_COSTS)}


def require_objectives(keys: Sequence[str], sources: Sources) -> None:
    """Refuse objectives that the labels of the validation clips do not define.

    Raises:
        UserError: there is one; the message names those that exist.
    """
    scale = label_scale(sources)
    ends = [value for end in ("label_min", "label_max") for _, value in sources.label_statistic("valid", end)]
    absent = scale.absent(ends or None)
    existing = [metric.key for metric in scale.metrics if metric.key not in absent]
    for key in keys:
        if key in METRICS and key not in existing:
            reason = absent.get(key, f"the labels are in {scale}")
            raise UserError(
                f"search.objectives has {key}, which does not exist for {sources.datasets[0].root}: {reason}. Choose "
                f"from {', '.join((*existing, *(cost.key for cost in _COSTS)))}."
            )


def directions(keys: Sequence[str]) -> list[Literal["minimize", "maximize"]]:
    """Optuna's direction of each objective."""
    return ["minimize" if BY_KEY[key].lower_is_better else "maximize" for key in keys]


def values_of(result: Mapping[str, Any], keys: Sequence[str]) -> list[float]:
    """Values of objectives in a run's result.json."""
    return [BY_KEY[key].read(result) for key in keys]

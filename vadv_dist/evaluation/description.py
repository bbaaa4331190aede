"""A task's description of itself as plain data: its loss terms, its outputs, and the metrics that score them.

A run's records contain the description, so that code that shows, watches or compares runs needs no task by name.
"""

from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        key: its name in files and in `search.objectives`.
        name: its name in tables, such as `A2`.
        unit: `label` (label units), `share` (a fraction, shown in percent) or empty.
        convention: the convention, for a metric with several, such as `has0`; empty for others.
        lower_is_better: which direction is better.
        worst: the value that a search uses for a run without one; None is infinity.
    """

    key: str
    name: str
    unit: str = "share"
    convention: str = ""
    lower_is_better: bool = False
    worst: float | None = 0.0

    @property
    def title(self) -> str:
        """Name and convention."""
        return f"{self.name} {self.convention}".strip()

    @property
    def heading(self) -> str:
        """The title with an arrow in the better direction."""
        return f"{self.title} {'↓' if self.lower_is_better else '↑'}"

    @property
    def percent(self) -> bool:
        """Whether it is shown as a percentage."""
        return self.unit == "share"

    def cost(self, value: float) -> float:
        """The value as a number to minimise; applying it twice gives the value back."""
        return value if self.lower_is_better else -value


@dataclass(frozen=True)
class Term:
    """A loss term.

    Attributes:
        name: its key in `metrics.jsonl`.
        title: what it compares, as a short phrase.
        symbol, mark: subscript and superscript of its L in the paper, such as `v` and `(r)`.
        weight: the field of its weight in the configuration's `objective`; empty if there is none.
        compares_label: whether it compares an output with the label. Other terms compare two outputs, a distance that
            training can make arbitrarily small.
        trains_student: whether its gradient reaches the student.
        distils: whether it passes what the teacher knows to the student; `objective.begin_epoch`, `ramp_epochs` and
            `guard` change its weight.
    """

    name: str
    title: str
    symbol: str = ""
    mark: str = ""
    weight: str = ""
    compares_label: bool = False
    trains_student: bool = False
    distils: bool = False

    @property
    def short(self) -> str:
        """Its symbol on one line, or its name."""
        return f"{self.symbol}{self.mark}" or self.name


@dataclass(frozen=True)
class Output:
    """A scored output: one column of predictions, one row of every table of metrics.

    Attributes:
        name: its key in metric documents.
        title: its name in tables.
        column: its column in prediction files.
        phrase: its name inside a sentence.
        holds: what a clip's prediction is: a `value` in label units, `probabilities` or unbounded `scores` of the
            classes, or `embeddings` of audio and visual.
    """

    name: str
    title: str
    column: str
    phrase: str
    holds: Literal["value", "probabilities", "scores", "embeddings"] = "value"


@dataclass(frozen=True)
class TaskDescription:
    """A task as users see it.

    Attributes:
        kind: the task's name in the configuration.
        terms: the loss terms of the run, in the order of every table.
        outputs: the scored outputs of the run; the first is the student.
        metrics: the metrics that exist for the data set's labels, in the order of every table.
        score: key of the student's metric that selects checkpoints and stops training early.
        classes: names of the labels' classes, in the order of their numbers; empty if labels are numbers.
    """

    kind: str
    terms: tuple[Term, ...]
    outputs: tuple[Output, ...]
    metrics: tuple[Metric, ...]
    score: str
    classes: tuple[str, ...] = ()

    @cached_property
    def score_metric(self) -> Metric:
        """The metric that selects checkpoints."""
        return self.metric(self.score)

    @property
    def student(self) -> Output:
        """The output that is scored for checkpoints."""
        return self.outputs[0]

    def first_metric(self, scored: Container[str]) -> Metric:
        """The metric that shows an output on its own: the score, or else its first metric.

        Args:
            scored: keys of the metrics that the output has.
        """
        own = (metric for metric in self.metrics if metric.key in scored)
        return self.score_metric if self.score in scored else next(own, self.score_metric)

    def metric(self, key: str) -> Metric:
        """The metric with a key.

        Raises:
            KeyError: the task has no such metric.
        """
        return {metric.key: metric for metric in self.metrics}[key]

    def term(self, name: str) -> Term:
        """The term with a name; an unknown one is described by its name only."""
        return next((term for term in self.terms if term.name == name), Term(name, name.replace("_", " ").capitalize()))

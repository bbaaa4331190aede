"""What a task says about itself, as plain data: its loss terms, its outputs, and the metrics that score them.

A run's records carry the description, so that whatever shows, watches or compares runs knows no task by name.
"""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Metric:
    """A metric: its key in files, its name, and how its values are read.

    Attributes:
        key: its name in files and in `search.objectives`.
        name: its name in tables, such as `A2`.
        unit: `label` (label units), `share` (a fraction, shown in percent) or empty.
        convention: the rule that a metric with several conventions follows, such as `has0`; empty for others.
        lower_is_better: which direction is better.
        worst: the value that a search uses where a run has none; None is infinity.
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
        """Whether it is written as a percentage."""
        return self.unit == "share"

    def cost(self, value: float) -> float:
        """The value as a number to minimise. Its own inverse."""
        return value if self.lower_is_better else -value


@dataclass(frozen=True)
class Term:
    """A loss term.

    Attributes:
        name: its key in `metrics.jsonl`.
        title: what it compares, as a short phrase.
        symbol, mark: subscript and superscript of its L in the paper, such as `v` and `(r)`.
        weight: the field of the configuration's `objective` that weighs it; empty where there is none.
        compares_label: whether it compares an output with the label. Other terms tie two outputs to each other, a
            distance that training can make as small as it likes.
        trains_student: whether its gradient reaches the student.
    """

    name: str
    title: str
    symbol: str = ""
    mark: str = ""
    weight: str = ""
    compares_label: bool = False
    trains_student: bool = False

    @property
    def short(self) -> str:
        """Its symbol on one line, or its name."""
        return f"{self.symbol}{self.mark}" or self.name


@dataclass(frozen=True)
class Output:
    """An output that is scored: one column of predictions, one row of every table of metrics.

    Attributes:
        name: its key in documents of metrics.
        title: its name in tables.
        column: its column in files of predictions.
        phrase: what it is called inside a sentence.
    """

    name: str
    title: str
    column: str
    phrase: str


@dataclass(frozen=True)
class TaskDescription:
    """A task as its users see it.

    Attributes:
        kind: the task's name in the configuration.
        terms: the loss terms that the run has, in the order of every table.
        outputs: the scored outputs that the run has; the first is the student.
        metrics: the metrics that exist for the data set's labels, in the order of every table.
        score: key of the metric of the student that chooses checkpoints and ends training early.
    """

    kind: str
    terms: tuple[Term, ...]
    outputs: tuple[Output, ...]
    metrics: tuple[Metric, ...]
    score: str

    @cached_property
    def score_metric(self) -> Metric:
        """The metric that chooses checkpoints."""
        return self.metric(self.score)

    @property
    def student(self) -> Output:
        """The output that the score is of."""
        return self.outputs[0]

    def metric(self, key: str) -> Metric:
        """The metric of a key.

        Raises:
            KeyError: the task has no such metric.
        """
        return {metric.key: metric for metric in self.metrics}[key]

    def term(self, name: str) -> Term:
        """The term of a name; one that the description lacks is named after itself."""
        return next((term for term in self.terms if term.name == name), Term(name, name.replace("_", " ").capitalize()))

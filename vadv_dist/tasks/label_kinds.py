"""What the labels decide in the sentiment task: the width of heads, the form of the losses, and the scores.

Labels are numbers or classes. Nothing else of the task asks which.

Shape letters: R clips, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vadv_dist.data.classes import class_names
from vadv_dist.data.sources import Sources
from vadv_dist.evaluation import classification
from vadv_dist.evaluation.calibration import Calibration, fit_line
from vadv_dist.evaluation.description import Metric, Output
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.relative_knowledge import relative_knowledge, relative_skill
from vadv_dist.evaluation.remarks import remarks, spread
from vadv_dist.models.heads import start_in_label_units
from vadv_dist.tasks.base import FloatArray


class LabelKind(ABC):
    """A kind of labels.

    Attributes:
        scale: range and threshold of labels that are numbers; None for classes.
        classes: names of the classes; empty for numbers.
        num_classes: C, the width of heads; None for heads of one number.
        threshold: lowest positive label; None for classes.
        unit: a sixth of the label range; 1 for classes.
        metrics: the metrics, in the order of every table.
        score_key: key of the metric that selects checkpoints.
    """

    scale: LabelScale | None = None
    classes: tuple[str, ...] = ()
    num_classes: int | None = None
    threshold: float | None = None
    unit: float = 1.0
    metrics: tuple[Metric, ...]
    score_key: str

    @abstractmethod
    def output(self, output: Output) -> Output:
        """An output with a number for each clip, as it is for these labels."""

    @abstractmethod
    def start(self, layer: nn.Linear, sources: Sources) -> None:
        """Let a last layer begin at what is known of the training labels, so that no epoch is spent on getting there.

        Args:
            layer: the last layer of a head with bias 0.
            sources: the data sets of the run.
        """

    @abstractmethod
    def prediction(self, logit: Tensor) -> Tensor:
        """Predictions of a logit, [R] or [R, C], fp32."""

    @abstractmethod
    def score(self, prediction: FloatArray, label: FloatArray, constant: float | None = None) -> dict[str, float]:
        """Metrics of one output on R clips; `constant` is the best number that training could predict."""

    @abstractmethod
    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""

    @abstractmethod
    def errors(self, prediction: FloatArray, label: FloatArray) -> FloatArray:
        """Error on each clip, [R]."""

    @abstractmethod
    def remarks(self, metrics: Mapping[str, Mapping[str, float | None]], outputs: Iterable[Output]) -> list[str]:
        """See `Task.remarks`."""

    @abstractmethod
    def knowledge(self, teacher: Mapping[str, float], student: Mapping[str, float]) -> float:
        """How much the teacher knows compared with the student, from 0 to 1, by the metrics of both."""

    @abstractmethod
    def calibration(self, prediction: FloatArray, label: FloatArray) -> Calibration | None:
        """The line that calibrates a student; None if these labels have none."""


class NumberLabels(LabelKind):
    """Labels in a range: heads of one number in label units, squared errors, MAE.

    Args:
        scale: the range.
    """

    score_key = "mae"

    def __init__(self, scale: LabelScale) -> None:
        self.scale = self._scale = scale
        self.threshold, self.unit, self.metrics = scale.threshold, scale.unit, scale.metrics

    def output(self, output: Output) -> Output:
        """See `LabelKind.output`."""
        return output

    def start(self, layer: nn.Linear, sources: Sources) -> None:
        """See `LabelKind.start`: at the mean label."""
        mean = sources.train_label("label_mean")
        start_in_label_units(layer, mean=self._scale.middle if mean is None else mean, unit=self.unit)

    def prediction(self, logit: Tensor) -> Tensor:
        """See `LabelKind.prediction`: the logit, [R]."""
        return logit.float()

    def score(self, prediction: FloatArray, label: FloatArray, constant: float | None = None) -> dict[str, float]:
        """See `LabelKind.score`; predictions and labels are [R], in label units."""
        return self._scale.score(prediction, label) | spread(prediction, label, constant)

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""
        return self._scale.absent(label)

    def errors(self, prediction: FloatArray, label: FloatArray) -> FloatArray:
        """See `LabelKind.errors`: absolute errors, in label units."""
        found: FloatArray = np.abs(prediction.astype(np.float64) - label)
        return found

    def remarks(self, metrics: Mapping[str, Mapping[str, float | None]], outputs: Iterable[Output]) -> list[str]:
        """See `Task.remarks`: outputs that are constant, or no better than a constant."""
        return remarks(metrics, outputs)

    def knowledge(self, teacher: Mapping[str, float], student: Mapping[str, float]) -> float:
        """See `LabelKind.knowledge`: min(1, r²(teacher, label) / r²(student, label))."""
        return relative_knowledge(teacher.get("corr", 0.0), student.get("corr", 0.0))

    def calibration(self, prediction: FloatArray, label: FloatArray) -> Calibration | None:
        """See `LabelKind.calibration`."""
        return fit_line(prediction, label)


class ClassLabels(LabelKind):
    """Labels that are classes: heads of a score for each, cross-entropies, accuracy.

    Args:
        names: names of the classes, in the order of their numbers.
    """

    metrics = classification.METRICS
    score_key = classification.ACCURACY.key

    def __init__(self, names: Sequence[str]) -> None:
        self.classes, self.num_classes = tuple(names), len(names)

    def output(self, output: Output) -> Output:
        """See `LabelKind.output`: a probability of each class."""
        column = output.column.replace("_logit", "_probabilities")
        return replace(output, column=column, holds="probabilities")

    def start(self, layer: nn.Linear, sources: Sources) -> None:
        """See `LabelKind.start`: at the classes' shares of the training clips."""
        counts = sources.train_class_counts()
        if counts is None:
            return
        # One clip more of each, so that a class without clips has a logarithm.
        logs = np.log(np.array([counts.get(one, 0) + 1 for one in range(len(self.classes))]))
        with torch.no_grad():
            layer.bias.copy_(torch.from_numpy(logs - logs.mean()))

    def prediction(self, logit: Tensor) -> Tensor:
        """See `LabelKind.prediction`: probabilities, [R, C]."""
        return logit.float().softmax(dim=-1)

    def score(self, prediction: FloatArray, label: FloatArray, constant: float | None = None) -> dict[str, float]:
        """See `LabelKind.score`; predictions are probabilities [R, C]."""
        return classification.score(prediction, label) | classification.beyond_constant(prediction, label)

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`: every metric exists."""
        return {}

    def errors(self, prediction: FloatArray, label: FloatArray) -> FloatArray:
        """See `LabelKind.errors`: 1 for a wrong class, 0 for the right one."""
        found: FloatArray = (classification.predicted_classes(prediction) != label).astype(np.float32)
        return found

    def remarks(self, metrics: Mapping[str, Mapping[str, float | None]], outputs: Iterable[Output]) -> list[str]:
        """See `Task.remarks`: outputs that predict one class, or are no better than a constant."""
        return classification.class_remarks(metrics, outputs)

    def knowledge(self, teacher: Mapping[str, float], student: Mapping[str, float]) -> float:
        """See `LabelKind.knowledge`: min(1, κ(teacher) / κ(student)), of Cohen's κ."""
        return relative_skill(teacher.get("kappa", 0.0), student.get("kappa", 0.0))

    def calibration(self, prediction: FloatArray, label: FloatArray) -> Calibration | None:
        """See `LabelKind.calibration`: classes have no line."""
        return None


def label_kind(sources: Sources) -> LabelKind:
    """The kind of a run's labels."""
    label = sources.label
    if label.is_class:
        return ClassLabels(class_names(label.classes, label.num_classes))
    return NumberLabels(LabelScale(label.low, label.high, label.positive_from))

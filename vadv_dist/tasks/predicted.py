"""Score predictions of labels, whatever made them: an exported student, or another program."""

from collections.abc import Mapping

import numpy.typing as npt

from vadv_dist.data.sources import Sources
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.tasks import sentiment
from vadv_dist.tasks.base import FloatArray, Metrics
from vadv_dist.tasks.label_kinds import label_kind


class PredictedLabels:
    """Metrics of a number per clip in label units, or of a probability per clip and class; a `Scorer`.

    Args:
        sources: the data sets that are scored.
    """

    def __init__(self, sources: Sources) -> None:
        self.kind = label_kind(sources)
        self.description = sentiment.describe(self.kind)

    @property
    def labels(self) -> LabelScale | None:
        """See `Task.labels`."""
        return self.kind.scale

    def predictions(self, values: FloatArray) -> dict[str, FloatArray]:
        """Predictions by the column that holds them, [R] or [R, C]."""
        return {self.description.student.column: values}

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""
        return self.kind.absent(label)

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """See `Task.metrics`."""
        student = self.description.student
        return {student.name: self.kind.score(predictions[student.column], label)}

    def remarks(self, metrics: Metrics) -> list[str]:
        """See `Task.remarks`."""
        return self.kind.remarks(metrics, self.description.outputs)

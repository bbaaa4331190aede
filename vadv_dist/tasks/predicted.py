"""Score predictions of labels, whatever made them: an exported student, or another program."""

from collections.abc import Mapping

import numpy.typing as npt

from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.evaluation.remarks import remarks
from vadv_dist.tasks import sentiment
from vadv_dist.tasks.base import FloatArray, Metrics


class PredictedLabels:
    """Metrics of one number per clip, in label units; a `Scorer`.

    Args:
        sources: the data sets that are scored.
        what: what makes the predictions, for messages, such as `the student of runs/a`.
    Raises:
        UserError: the labels are classes.
    """

    def __init__(self, sources: Sources, what: str) -> None:
        if sources.label.is_class:
            root = sources.datasets[0].root
            raise UserError(
                f"{root} has classes as labels, but {what} predicts a number. Score it on one of sentiment labels."
            )
        self.labels = sentiment.label_scale(sources)
        self.description = sentiment.describe(self.labels)

    def predictions(self, value_R: FloatArray) -> dict[str, FloatArray]:
        """Predicted labels by the column that holds them, [R]."""
        return {sentiment.STUDENT.column: value_R}

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""
        return self.labels.absent(label)

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """See `Task.metrics`."""
        scores = sentiment.score(self.labels, predictions[sentiment.STUDENT.column], label, None)
        return {sentiment.STUDENT.name: scores}

    def remarks(self, metrics: Metrics) -> list[str]:
        """See `Task.remarks`."""
        return remarks(metrics, self.description.outputs)

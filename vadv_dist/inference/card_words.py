"""What a model card of a text student says that depends on its labels: numbers, or classes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vadv_dist.evaluation import classification
from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.remarks import remark


@dataclass(frozen=True)
class CardWords:
    """Words for one kind of labels.

    Attributes:
        task: the task, as the Hub's metadata names it.
        prediction: what a prediction is.
        error: how far one prediction may be trusted.
        range: a sentence about the range of predictions, after a space; empty without one.
        notes: how the metrics are computed; empty if unknown.
        metrics: the metrics of these labels.
        remark: what is wrong with a model of some metrics, as the end of a sentence; None if nothing is.
    """

    task: str
    prediction: str
    error: str
    range: str
    notes: str
    metrics: tuple[Metric, ...]
    remark: Callable[[Mapping[str, float | None]], str | None]


def words_of_numbers(labels: LabelScale | None) -> CardWords:
    """Words for labels in a range; None if it is unknown."""
    prediction, within, notes = "one number in the units of the training labels", "", ""
    if labels is not None:
        bounds = f"in [{labels.low:g}, {labels.high:g}]"
        prediction += f", which are {bounds}, negative below {labels.threshold:g}, positive above"
        within = f" Training labels are {bounds}; a prediction is not clipped and may leave that range."
        notes = " ".join([*labels.notes, *labels.in_words(labels.absent())])
    return CardWords(
        task="sentiment regression",
        prediction=prediction,
        error="One prediction has an error of about the mean absolute error below.",
        range=within,
        notes=notes,
        metrics=(labels or LabelScale()).metrics,
        remark=remark,
    )


def words_of_classes(classes: Sequence[str]) -> CardWords:
    """Words for labels of these classes."""
    return CardWords(
        task="sentiment classification",
        prediction=f"a probability of each class: {', '.join(classes)}",
        error="The predicted class is right about as often as the accuracy below says.",
        range=" Probabilities were not calibrated.",
        notes=classification.NOTES,
        metrics=classification.METRICS,
        remark=classification.class_remark,
    )

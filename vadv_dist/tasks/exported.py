"""Exported students on data that they were not trained on, each a `StudentScorer`.

Shape letters: R clips, T frames, N tokens per frame, D width of features, E embedding width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.data.classes import class_names, listed
from vadv_dist.data.context import separated
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.sources import Sources
from vadv_dist.errors import UserError
from vadv_dist.evaluation import retrieval
from vadv_dist.inference.manifest import ONNX, PYTORCH, RETRIEVAL, read_manifest, task_of, verify_export
from vadv_dist.inference.model_card import ModelCard
from vadv_dist.inference.predict import open_text_student
from vadv_dist.inference.retrieve import PairStudent
from vadv_dist.storage import Location, location
from vadv_dist.tasks import retrieval as retrieval_task
from vadv_dist.tasks.base import FloatArray, Metrics, StudentScorer
from vadv_dist.tasks.predicted import PredictedLabels
from vadv_dist.tasks.retrieval import MODALITIES


def open_student(folder: Path, sources: Sources, source: Location) -> StudentScorer:
    """Load an exported student, to score it on data that it was not trained on.

    Args:
        folder: an export on this machine.
        sources: the data set that it is scored on.
        source: where the student comes from, for messages.
    Raises:
        UserError: the export is damaged, or the data set has other labels or features than the student.
    """
    is_pair = task_of(read_manifest(folder)) == RETRIEVAL
    return ExportedPair(folder, sources, source) if is_pair else ExportedTextStudent(folder, sources, source)


class ExportedTextStudent(PredictedLabels):
    """The text student of an export; see `open_student`."""

    reads: tuple[str, ...] = ()

    def __init__(self, folder: Path, sources: Sources, source: Location) -> None:
        card = verify_export(folder, PYTORCH, ONNX).card
        self.name, self.data, self.context = card.name, card.data, card.context
        self._separator = card.separator
        super().__init__(sources)
        (dataset,) = sources.datasets
        theirs = dataset.manifest.label
        if theirs.is_class or card.classes:
            _require_same_classes(card, dataset, source)
            self._student = open_text_student(location(folder))
            return
        if card.labels is None:
            raise UserError(
                f"The label range of {source} is unknown: it was written by an earlier version. Train and export it "
                "again."
            )
        own = card.labels
        if (own.low, own.high) != (theirs.low, theirs.high):
            raise UserError(
                f"{dataset.root} has labels in [{theirs.low:g}, {theirs.high:g}], but the student of {source} predicts "
                f"labels in [{own.low:g}, {own.high:g}]. Convert the data set's labels to the student's range and "
                "ingest it again (--label-range)."
            )
        self._student = open_text_student(location(folder))

    def predict(self, texts: Sequence[str], features: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `StudentScorer.predict`."""
        return self.predictions(self._student.predict(list(separated(texts, self._separator))))

    @property
    def texts_cut(self) -> dict[str, Any]:
        """See `StudentScorer.texts_cut`."""
        return self._student.counts.to_json()


def _require_same_classes(card: ModelCard, dataset: Dataset, source: Location) -> None:
    label = dataset.manifest.label
    theirs = tuple(class_names(label.classes, label.num_classes)) if label.is_class else ()
    if theirs == card.classes:
        return
    has = f"the classes {listed(theirs)}" if theirs else "labels that are numbers"
    predicts = f"the classes {listed(card.classes)}" if card.classes else "a number"
    raise UserError(
        f"{dataset.root} has {has}, but the student of {source} predicts {predicts}. Give a data set with the labels "
        "that it was trained on."
    )


class ExportedPair:
    """The retrieval student of an export; see `open_student`."""

    labels = None
    reads: tuple[str, ...] = MODALITIES
    context = 0

    def __init__(self, folder: Path, sources: Sources, source: Location) -> None:
        self._student = PairStudent.load(folder)
        card, widths = self._student.manifest.card, self._student.manifest.widths
        self.name, self.data = card.name, card.data
        (dataset,) = sources.datasets
        if not dataset.manifest.label.is_class:
            raise UserError(
                f"{dataset.root} has labels that are numbers, but the student of {source} is scored by classes. Give a "
                "data set of classes."
            )
        for name in MODALITIES:
            spec = dataset.manifest.features.get(name)
            if spec is None:
                raise UserError(f"{dataset.root} has no {name} features, which the student of {source} reads.")
            if spec.shape[-1] != widths[name]:
                raise UserError(
                    f"{dataset.root} has {name} features of width {spec.shape[-1]}, but the student of {source} reads "
                    f"width {widths[name]}. Give a data set with the features that it was trained on."
                )
        self.description = retrieval_task.describe()

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""
        return {}

    def predict(self, texts: Sequence[str], features: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `StudentScorer.predict`: embeddings [R, 2, E], of length 1."""
        sides = []
        for name in MODALITIES:
            values = features[name].reshape(len(texts), -1, features[name].shape[-1]).mean(axis=1)
            absent = np.isnan(values).any(axis=1, keepdims=True)
            sides.append(np.where(absent, np.nan, self._student.embed(name, np.where(absent, 0.0, values))))
        return {retrieval_task.STUDENT.column: np.stack(sides, axis=1)}

    @property
    def texts_cut(self) -> dict[str, Any]:
        """See `StudentScorer.texts_cut`."""
        return {}

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """See `StudentScorer.metrics`."""
        student = retrieval_task.STUDENT
        return {student.name: retrieval.score(predictions[student.column], label)}

    def remarks(self, metrics: Metrics) -> list[str]:
        """See `StudentScorer.remarks`."""
        return []

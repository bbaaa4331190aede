"""The interface between the training loop and a task: description, training step, parameters and metrics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vadv_dist.data.collate import Collator
from vadv_dist.data.schema import Batch
from vadv_dist.evaluation.calibration import Calibration
from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.objectives.rank_state import load_rank_state, rank_buffer_names, rank_state
from vadv_dist.objectives.weighting import Weighting
from vadv_dist.storage import Location

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Metrics = dict[str, dict[str, float]]
FloatArray = npt.NDArray[np.float32]
Outputs = dict[str, Tensor]
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay."""

    name: str
    names: list[str]
    parameters: list[nn.Parameter]
    lr: float
    weight_decay: float


class TrainingStep(nn.Module):
    """A task's model and objective as one module, which engines run.

    All trained parameters, including the objective's, are its parameters, so engines partition, reduce and save them
    in the same way.

    Attributes:
        keeps_fp32_weights: engines that would round all of its weights to bf16 keep them in fp32, and let it compute
            under autocast instead.
    """

    keeps_fp32_weights: ClassVar[bool] = False

    def forward(self, batch: Batch, *, with_terms: bool = True) -> tuple[Outputs, Terms]:
        """Return the model's outputs and unweighted loss terms.

        Args:
            batch: one micro-batch.
            with_terms: False leaves the objective out, for prediction.
        Returns:
            outputs by name, each [B, ...]; and terms by name, each []: the local rows' share of a mean over the global
            batch, so that the shares of ranks and micro-batches add up.
        """
        raise NotImplementedError

    def rank_buffer_names(self) -> list[str]:
        """Full names of the buffers that differ between ranks (`objectives/rank_state.py`)."""
        return rank_buffer_names(self)

    def rank_state(self) -> dict[str, Tensor]:
        """Copies of these buffers on the CPU, by full name."""
        return rank_state(self)

    def load_rank_state(self, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> None:
        """Restore the results of `rank_state` of all ranks of an earlier start, for any number of ranks."""
        load_rank_state(self, states, rank, world_size)


@dataclass(frozen=True)
class StudentFacts:
    """Facts about training for the card of an exported student.

    Attributes:
        name: name of the run.
        metrics: metrics of the student on the validation split.
        data: one entry per data set trained on: `uri`, `fingerprint`, `rows` by split.
        config: the run's configuration, as plain containers.
        calibration: the line in the student's last layer; None without one.
        predictions: of the validation split, without calibration, and its labels, [R] each; None if they are not known
            or a prediction is not one number.
    """

    name: str
    metrics: Mapping[str, float | None]
    data: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    calibration: Calibration | None = None
    predictions: tuple[FloatArray, FloatArray] | None = None


class Task(Protocol):
    """One task, built from a configuration and its data sets by `tasks.build`.

    Attributes:
        description: its terms, outputs and metrics, as plain data.
        step: model and objective.
        collator: assembles batches from the columns that the task reads.
        weights: fixed weight of each term; a weighting replaces those that are not 0.
    """

    description: TaskDescription
    step: TrainingStep
    collator: Collator
    weights: Mapping[str, float]

    @property
    def labels(self) -> LabelScale | None:
        """Range and threshold of the labels; None for classes."""
        ...

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase | None":
        """The tokenizer of a task that reads text; None for others."""
        ...

    @property
    def in_closed_form(self) -> bool:
        """Whether `fit` determines the model, so that no step is trained."""
        ...

    @property
    def begins_with_fit(self) -> bool:
        """Whether `fit` determines the model, or a part of it, before the first step."""
        ...

    def fit(self, batches: Iterable[Batch]) -> None:
        """Determine the model, or a part of it, in closed form.

        Args:
            batches: the train split in any order, read as often as it is iterated over.
        """
        ...

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """Metrics that the labels do not define, each with the reason; `label` are those that are scored, or None."""
        ...

    def predictions(self, outputs: Outputs, batch: Batch) -> Outputs:
        """Scored values of a batch by column of `description.outputs`, each [B, ...], fp32.

        NaN for rows that lack a feature an output needs.
        """
        ...

    def example(self, rows: int, tokens: int, device: torch.device) -> Batch:
        """An example batch with the shapes that the model receives."""
        ...

    def check(self, device: torch.device) -> None:
        """Detect, before the first step, problems of the model that cause no error in training.

        Raises:
            UserError: there is a problem.
        """
        ...

    def weighting(self, device: torch.device) -> Weighting | None:
        """The weighting of the terms whose weight is not 0, in the order of `weights`; None if they are fixed."""
        ...

    def parameter_groups(self) -> list[ParameterGroup]:
        """All trained parameters, each in exactly one group."""
        ...

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """Metrics by name of the output; NaN where one is undefined."""
        ...

    def clip_errors(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> FloatArray:
        """The student's error on each clip, [R], for paired intervals between runs."""
        ...

    def remarks(self, metrics: Metrics) -> list[str]:
        """Sentences about outputs that have learned nothing."""
        ...

    def guard(self, metrics: Metrics) -> float:
        """How much the teacher knows compared with the student, from 0 to 1, by their metrics on the same clips.

        `objective.guard` multiplies the weights of the terms that distil by it; 1 in tasks that have no guard.
        """
        ...

    def calibration(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Calibration | None:
        """The line from the student's validation predictions to the labels; None if the student is not calibrated."""
        ...

    def calibrated(self, weights: Mapping[str, Tensor], calibration: Calibration | None) -> Mapping[str, Tensor]:
        """A checkpoint's weights with the line folded into the student's last layer."""
        ...

    def export(self, out: Location, weights: Mapping[str, Tensor], facts: StudentFacts) -> None:
        """Write the student with a checkpoint's weights as a standalone model, replacing an earlier one."""
        ...


class Scorer(Protocol):
    """What scores predictions, whoever made them.

    Attributes:
        description: as in `Task`.
    """

    description: TaskDescription

    @property
    def labels(self) -> LabelScale | None:
        """See `Task.labels`."""
        ...

    def absent(self, label: npt.ArrayLike | None = None) -> dict[str, str]:
        """See `Task.absent`."""
        ...

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """See `Task.metrics`."""
        ...

    def remarks(self, metrics: Metrics) -> list[str]:
        """See `Task.remarks`."""
        ...


class StudentScorer(Scorer, Protocol):
    """An exported student, to be scored on other data.

    Attributes:
        name: name of the run that trained it.
        data: the data sets that it was trained on, as in `StudentFacts`.
        reads: features that it reads beside the text.
        context: number of utterances before a clip that it reads (`data/context.py`).
    """

    name: str
    data: Sequence[Mapping[str, Any]]
    reads: tuple[str, ...]
    context: int

    def predict(self, texts: Sequence[str], features: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Predictions of R clips by column of `description.outputs`, [R, ...] each.

        Args:
            texts: of the clips; with context, their readings.
            features: values of each feature that it reads, [R, ...]; NaN where a clip lacks it.
        """
        ...

    @property
    def texts_cut(self) -> dict[str, Any]:
        """How many texts have been truncated so far; empty for a student that reads none."""
        ...


def parameter_counts(task: Task) -> dict[str, int]:
    """Number of parameters of the teacher and the student, and of trained ones."""
    counts = {"teacher": 0, "student": 0, "trained": 0}
    for name, parameter in task.step.named_parameters():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
        counts["trained"] += parameter.numel() if parameter.requires_grad else 0
    return counts

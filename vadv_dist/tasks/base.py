"""What the training loop knows of a task: a model, its loss terms, its parameters and its metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vadv_dist.data.collate import Collator
from vadv_dist.data.schema import Batch
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.objectives.rank_state import load_rank_state, rank_buffer_names, rank_state
from vadv_dist.objectives.weighting import Weighting

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
    """A task's model and objective as one module, which is what an engine runs.

    All that is trained are its parameters, those of the objective among them, so that engines partition, reduce and
    save them alike.
    """

    def forward(self, batch: Batch, *, with_terms: bool = True) -> tuple[Outputs, Terms]:
        """Outputs of the models, and unweighted loss terms.

        Args:
            batch: one micro-batch.
            with_terms: False leaves the objective out, for prediction.
        Returns:
            outputs by name, each [B, ...]; and terms by name, each []: the local rows' share of a mean over the global
            batch, so that the shares of ranks and micro-batches add up.
        """
        raise NotImplementedError

    def rank_buffer_names(self) -> list[str]:
        """Full names of the buffers that are each rank's own (`objectives/rank_state.py`)."""
        return rank_buffer_names(self)

    def rank_state(self) -> dict[str, Tensor]:
        """Copies of these buffers on the CPU, by full name."""
        return rank_state(self)

    def load_rank_state(self, states: Sequence[Mapping[str, Tensor]], rank: int, world_size: int) -> None:
        """Take over what `rank_state` gave on every rank of an earlier start, for any number of ranks."""
        load_rank_state(self, states, rank, world_size)


class Task(Protocol):
    """One task: its model, its objective and its metrics, built from a configuration."""

    step: TrainingStep
    scale: LabelScale
    collator: Collator
    weighted_terms: tuple[str, ...]

    def predictions(self, outputs: Outputs, batch: Batch) -> Outputs:
        """What is scored of a batch's outputs, each [B], fp32; NaN on rows without what an output needs."""
        ...

    def example(self, rows: int, tokens: int, device: torch.device) -> Batch:
        """A batch of so many rows and tokens per row, of the shapes that the model receives."""
        ...

    def weighting(self, device: torch.device) -> Weighting | None:
        """Build what weighs the terms `weighted_terms`; None where they have fixed weights."""
        ...

    def collapse(self, weights: Mapping[str, float]) -> dict[str, Any] | None:
        """The term whose weight hides the one that trains the student, and by which ratio; None where none does."""
        ...

    def total(self, terms: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The weighted sum that is optimised, []; `weights` by term, None for the fixed ones."""
        ...

    def parameter_groups(self) -> list[ParameterGroup]:
        """All trained parameters, each in exactly one group."""
        ...

    def metrics(self, predictions: Mapping[str, FloatArray], label: FloatArray) -> Metrics:
        """Metrics of each output; `student` is the one that counts."""
        ...

    def remarks(self, metrics: Metrics) -> list[str]:
        """Sentences on outputs that are constant, or no better than a constant."""
        ...

    def score(self, metrics: Metrics) -> float:
        """What early stopping and the choice of the best checkpoint minimise."""
        ...

"""What the training loop knows of a task: a model, its loss terms, its parameters and its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vadv_dist.data.collate import Collator
from vadv_dist.data.schema import Batch
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.objectives.weighting import Weighting

Metrics = dict[str, dict[str, float]]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay."""

    name: str
    names: list[str]
    parameters: list[nn.Parameter]
    lr: float
    weight_decay: float


class Task(Protocol):
    """One task: its model, its objective and its metrics, built from a configuration."""

    model: nn.Module
    scale: LabelScale
    collator: Collator
    weighted_terms: tuple[str, ...]

    def inputs(self, batch: Batch) -> dict[str, Tensor | None]:
        """Keyword arguments of the model's forward."""
        ...

    def terms(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Unweighted loss terms of the local rows over global counts, each []: ranks' terms add up."""
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

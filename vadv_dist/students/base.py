"""The base class of retrieval students, and the encoder that several of them share.

Shape letters: B batch, A and V widths of the audio and visual vectors, E embedding width, C classes.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import at_least_fp32, head_layer
from vadv_dist.objectives.outputs import PairOutputs, Rows


class RetrievalStudent(nn.Module):
    """Embeds the audio and the visual vector of a clip so that their cosine says whether they share a class.

    Attributes:
        computes_in_fp32: engines leave its parameters in fp32 where the model is bf16: towers are small.
        in_closed_form: it is not trained by gradients; `fit` determines its parameters before the first validation.
        begins_with_fit: `fit` determines a part of it before the rest is trained by gradients.
        predicts_classes: its outputs have scores of classes.
        described: its own terms, in the order of every table.
        weights: fixed weight of each of its terms, by name.
    """

    computes_in_fp32: ClassVar[bool] = True
    in_closed_form: ClassVar[bool] = False
    begins_with_fit: ClassVar[bool] = False
    predicts_classes: ClassVar[bool] = True
    described: tuple[Term, ...] = ()
    weights: Mapping[str, float]

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """Embed the vectors of a batch, each on its own: no row and no modality affects another."""
        raise NotImplementedError

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """Compute its unweighted losses for one micro-batch, by name.

        Args:
            pair: result of `forward`.
            rows: the rows; `valid` is 1 for those with both modalities, and `label` has their classes.
        Returns:
            the local rows' share of each term, [], fp32 or wider; the shares of ranks and micro-batches add up.
        """
        return {}

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Determine the parameters in closed form.

        Args:
            batches: (audio [B, A], visual [B, V], class [B]) of all clips of the train split with both modalities, once
                and in any order; read as often as it is iterated over.
        """
        raise NotImplementedError


class MLP(nn.Module):
    """Layers with ReLU between them, in fp32.

    Args:
        in_features: width of the input.
        hidden: width of every other layer.
        out_features: width of the output.
        layers: number of layers.
        dropout: dropout of hidden values.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, layers: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [in_features, *[hidden] * (layers - 1), out_features]
        self.layers = nn.ModuleList(head_layer(a, b) for a, b in itertools.pairwise(widths))
        self.drop = nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., in_features] to fp32 [..., out_features]."""
        return self.read(values)[1]

    def read(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the last layer before dropout, [..., hidden], and what `forward` does."""
        *hidden, last = self.layers
        for number, layer in enumerate(hidden):
            values = torch.relu(layer(self.drop(values) if number else values))
        return values, last(self.drop(values) if hidden else values)


def mean_share(values_B: Tensor, rows: Rows) -> Tensor:
    """Local share of the mean over real rows with both modalities, [], fp32 or wider; values of others are ignored."""
    values_B = values_B.to(at_least_fp32(values_B.dtype))
    return torch.where(rows.counted, values_B, 0.0).sum() / rows.num_rows


def class_loss(logit_BC: Tensor, rows: Rows) -> Tensor:
    """Local share of the mean cross-entropy with the class of each row, []."""
    scores = torch.where(rows.counted[:, None], logit_BC.to(at_least_fp32(logit_BC.dtype)), 0.0)
    return mean_share(nn.functional.cross_entropy(scores, rows.label.long(), reduction="none"), rows)

"""The base class of objectives: modules of named terms, which are weighted and summed in one place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.outputs import Rows


class Objective(nn.Module):
    """Computes the unweighted loss terms of a micro-batch; it may have trained parameters and per-rank state.

    A parameter has at least one dimension: DeepSpeed cannot broadcast scalars.

    Attributes:
        computes_in_fp32: engines leave its parameters in fp32 where the model is bf16.
        reads_features: whether the models are asked for their representations of a clip.
        described: its terms, in the order of every table.
    """

    computes_in_fp32 = True
    reads_features = False
    described: tuple[Term, ...]

    def forward(self, outputs: Any, rows: Rows) -> dict[str, Tensor]:
        """Compute the unweighted terms of one micro-batch by name.

        Args:
            outputs: those of the task's models (`objectives/outputs.py`).
            rows: the rows.
        Returns:
            the local rows' share of each term, [], fp32 or wider; the shares of ranks and micro-batches add up.
        """
        raise NotImplementedError


def weighted_total(terms: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """Weight and sum the terms: the optimised loss (VideoAdviser, arXiv:2309.15494, eq. 15).

    Args:
        terms: result of an `Objective`.
        weights: weights by term.
    Returns:
        the total, [].
    Raises:
        ValueError: there are no terms.
        KeyError: a term has no weight.
    """
    if not terms:
        raise ValueError("There are no terms to sum.")
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def at_least_fp32(values: Tensor) -> Tensor:
    """The values in fp32, or as they are if they are wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

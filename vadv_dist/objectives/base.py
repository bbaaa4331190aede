"""What every objective is: a module of named terms, which are weighed and added up in one place."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.outputs import Rows, TeacherStudentOutputs


class Objective(nn.Module):
    """Gives the unweighted loss terms of a micro-batch; it may have trained parameters and state of each rank.

    Attributes:
        described: the terms that it gives, in the order of every table.
    """

    described: tuple[Term, ...]

    def forward(self, outputs: TeacherStudentOutputs, rows: Rows) -> dict[str, Tensor]:
        """Unweighted terms of one micro-batch by name.

        Returns:
            the local rows' share of each term, [], fp32 or wider; the shares of ranks and micro-batches add up.
        """
        raise NotImplementedError


def weighted_total(terms: Mapping[str, Tensor], weights: Mapping[str, float | Tensor]) -> Tensor:
    """Weigh the terms and add them up: what is optimised (VideoAdviser, arXiv:2309.15494, eq. 15).

    Args:
        terms: what an `Objective` gave.
        weights: by term.
    Returns:
        the total, [].
    Raises:
        ValueError: there is no term.
        KeyError: a term has no weight.
    """
    if not terms:
        raise ValueError("There is no term to add up.")
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

"""The base class of rival objectives: what one view of a clip, the teacher's, tells another one, the student's.

Shape letters: B batch, C classes, D width of a representation.
"""

from typing import ClassVar, Literal

from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.outputs import Rows, View


class Distillation(nn.Module):
    """A loss from a teacher's view to a student's; it may have trained parameters and per-rank state.

    A parameter has at least one dimension: DeepSpeed cannot broadcast scalars.

    Attributes:
        reads: `features` (representations, [B, D]), `classes` (scores of classes, [B, C]) or `logit` (predictions, [B]
            or [B, C]) of both views.
        described: its terms, in the order of every table; they train the student.
    """

    reads: ClassVar[Literal["features", "classes", "logit"]]
    described: tuple[Term, ...]

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """Compute the unweighted terms of one micro-batch by name.

        Args:
            teacher, student: views with what the loss reads. Values of rows that do not count may be anything.
            rows: the rows; those of `rows.counted` count.
        Returns:
            the local rows' share of each term, [], fp32 or wider; the shares of ranks and micro-batches add up.
        """
        raise NotImplementedError


def teaching_term(name: str, title: str, symbol: str) -> Term:
    """A term of a rival: ψ weights it, and it carries knowledge from the teacher to the student."""
    return Term(name, title, symbol, weight="psi", trains_student=True, distils=True)

"""Random: projections that are drawn once and never trained, the baseline that any student must beat (Table 4)."""

from collections.abc import Iterable

from torch import Tensor

from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.outputs import PairOutputs
from vadv_dist.students.base import RetrievalStudent


class RandomProjection(RetrievalStudent):
    """A random linear map for each modality.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C, which has no influence.
        width: of an embedding.
    """

    in_closed_form = True
    predicts_classes = False

    def __init__(self, audio_width: int, visual_width: int, num_classes: int, *, width: int) -> None:
        super().__init__()
        self.audio, self.visual = head_layer(audio_width, width), head_layer(visual_width, width)
        self.weights = {}

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """See `RetrievalStudent.fit`: nothing is determined."""

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        return PairOutputs(self.audio(audio_BA), self.visual(visual_BV))

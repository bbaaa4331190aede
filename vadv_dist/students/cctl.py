"""CCTL: complete cross-triplet loss in label space (Zeng et al. 2022, IEEE ISM, arXiv:2211.03434).

Only the description is public, no code: each modality is projected into the space of labels, the projection is drawn to
the one-hot label, and triplets take anchors, positives and negatives from both modalities in every combination. We
read "every combination" as the six that involve both modalities. The widths, the margin and the weights are ours; the
distance is 1 - cosine, as in the authors' code of TNN-C-CCA.

Shape letters: G rows of all ranks, C classes.
"""

import torch
from torch import Tensor

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import MLP, RetrievalStudent
from vadv_dist.students.row_losses import counted_values, label_distance
from vadv_dist.students.triplets import batch_all, cosine_distance, relations

TERMS = (
    Term("label_space", "Projection to one-hot class", weight="beta", compares_label=True, trains_student=True),
    Term("cross_triplet", "Triplets across modalities", weight="beta", compares_label=True, trains_student=True),
)


class Cctl(RetrievalStudent):
    """A three-layer perceptron for each modality, whose output is both its scores of classes and its embedding.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C, also the width of an embedding.
        hidden: width of the hidden layers.
        dropout: dropout of hidden values.
        margin: of the triplets, in cosine.
        triplet: weight of the triplets next to the label space's 1.
    """

    described = TERMS

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        num_classes: int,
        *,
        hidden: int,
        dropout: float,
        margin: float,
        triplet: float,
    ) -> None:
        super().__init__()
        self.audio = MLP(audio_width, hidden, num_classes, layers=3, dropout=dropout)
        self.visual = MLP(visual_width, hidden, num_classes, layers=3, dropout=dropout)
        self.margin = margin
        self.weights = {"label_space": 1.0, "cross_triplet": triplet}

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        (audio_hidden, audio_BC), (visual_hidden, visual_BC) = self.audio.read(audio_BA), self.visual.read(visual_BV)
        return PairOutputs(
            audio_BC, visual_BC, audio_BC, visual_BC, audio_hidden=audio_hidden, visual_hidden=visual_hidden
        )

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        batch = GlobalBatch(rows)
        audio, visual = pair.audio_embedding, pair.visual_embedding
        loss = complete_triplets(
            batch.gather(counted_values(audio, rows)),
            batch.gather(counted_values(visual, rows)),
            batch.label,
            batch.counted,
            self.margin,
        )
        return {
            "label_space": label_distance(audio, rows) + label_distance(visual, rows),
            "cross_triplet": batch.share(loss),
        }


def complete_triplets(audio_GC: Tensor, visual_GC: Tensor, label_G: Tensor, counted_G: Tensor, margin: float) -> Tensor:
    """Mean over the six combinations of modalities of the loss of their triplets, [].

    An anchor is no positive of itself: within its modality it is left out.
    """
    same_GG, other_GG = relations(label_G, counted_G)
    apart_GG = same_GG & ~torch.eye(len(label_G), dtype=torch.bool, device=label_G.device)
    losses = []
    for anchor, opposite in ((audio_GC, visual_GC), (visual_GC, audio_GC)):
        within, across = cosine_distance(anchor, anchor), cosine_distance(anchor, opposite)
        losses += [
            batch_all(across, across, same_GG, other_GG, margin),
            batch_all(across, within, same_GG, other_GG, margin),
            batch_all(within, across, apart_GG, other_GG, margin),
        ]
    return torch.stack(losses).mean()

"""TNN-C-CCA: triplet networks on cluster-CCA projections (Zeng et al. 2020, ACM TOMM, arXiv:1908.03737).

Source: the published code, ZenzenDatabase/CMR `batch_all.py` and `batch_hard.py`: cluster-CCA first, then a network of
four tanh layers for each modality. Differences: the code's last sigmoid keeps all cosines near 1, and is left out; its
anchors are audio clips only, and here both modalities are; the clip itself is no positive of its own in the code; and
its mining pairs an anchor with candidates of any class, where we follow Hermans et al. 2017 (arXiv:1703.07737).

Shape letters: G rows of all ranks, E width of an embedding.
"""

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.c_cca import LinearCca
from vadv_dist.students.encoders import saturating
from vadv_dist.students.row_losses import counted_values
from vadv_dist.students.triplets import batch_all, batch_hard, cosine_distance, relations

TERMS = (Term("triplet", "Triplets across modalities", weight="beta", compares_label=True, trains_student=True),)


class TnnCCca(RetrievalStudent):
    """Fixed linear projections that are fitted first, and a trained network for each modality.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C.
        components: of cluster-CCA; None is one less than the classes.
        ridge: of cluster-CCA.
        hidden: width of the three hidden layers.
        width: E.
        dropout: after every hidden layer.
        margin: of the triplets, in cosine.
        mining: `all` triplets that violate the margin, or the `hard`est one of each anchor.
    """

    begins_with_fit = True
    predicts_classes = False
    described = TERMS

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        num_classes: int,
        *,
        components: int | None,
        ridge: float,
        hidden: int,
        width: int,
        dropout: float,
        margin: float,
        mining: Literal["all", "hard"],
    ) -> None:
        super().__init__()
        self.cca = LinearCca(audio_width, visual_width, num_classes, components=components, ridge=ridge)
        self.cca.requires_grad_(False)
        self.audio, self.visual = (
            nn.Sequential(
                *saturating(self.cca.width, *[hidden] * 3, activation=nn.Tanh, dropout=dropout),
                head_layer(hidden, width),
                nn.Tanh(),
            )
            for _ in range(2)
        )
        self.margin = margin
        self.loss = batch_all if mining == "all" else batch_hard
        self.weights = {"triplet": 1.0}

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """See `RetrievalStudent.fit`: sets the projections."""
        self.cca.fit(batches)

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        audio_BK, visual_BK = self.cca(audio_BA, visual_BV)
        audio_hidden, audio_BE = _read(self.audio, audio_BK)
        visual_hidden, visual_BE = _read(self.visual, visual_BK)
        return PairOutputs(audio_BE, visual_BE, audio_hidden=audio_hidden, visual_hidden=visual_hidden)

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        batch = GlobalBatch(rows)
        audio_GE, visual_GE = (
            batch.gather(counted_values(one, rows)) for one in (pair.audio_embedding, pair.visual_embedding)
        )
        distance_GG = cosine_distance(audio_GE, visual_GE)
        related = relations(batch.label, batch.counted)
        from_audio = self.loss(distance_GG, distance_GG, *related, self.margin)
        from_visual = self.loss(distance_GG.T, distance_GG.T, *related, self.margin)
        return {"triplet": batch.share(from_audio + from_visual)}


def _read(network: nn.Sequential, values: Tensor) -> tuple[Tensor, Tensor]:
    """The hidden values that the last layer reads, and the network's output."""
    *hidden, last, activation = network
    for layer in hidden:
        values = layer(values)
    return values, activation(last(values))

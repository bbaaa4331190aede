"""EICS: explicit and implicit common subspaces of audio and visual vectors.

Source: Zeng et al., Learning explicit and implicit dual common subspaces for audio-visual cross-modal retrieval (ACM
TOMM 2023), as VideoAdviser (arXiv:2309.15494, section 4 and Table 3) describes it. The losses are reconstructed from
these descriptions; no code was published.

Shape letters: B batch, G rows of all ranks, H width of a subspace, C classes.
"""

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import MLP, RetrievalStudent, class_loss, mean_share


class Eics(RetrievalStudent):
    """Two encoders with two subspaces each; an embedding is the unit vectors of both subspaces side by side.

    In the explicit subspace the two vectors of a clip are close, and so are the means of the modalities. In the
    implicit one, a classifier that both modalities share tells the classes apart.

    Args:
        audio_width, visual_width: widths of the vectors.
        num_classes: C.
        hidden: H, also the width of the encoders' layers.
        layers: layers of each encoder.
        explicit, gap, implicit: weights of the terms.
        dropout: dropout of hidden values.
    """

    described = (
        Term("explicit", "Two vectors of a clip", "exp", weight="beta", trains_student=True),
        Term("gap", "Means of the modalities", "gap", weight="beta", trains_student=True),
        Term("implicit", "Class of each vector", "imp", weight="beta", compares_label=True, trains_student=True),
    )

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        num_classes: int,
        *,
        hidden: int,
        layers: int,
        explicit: float,
        gap: float,
        implicit: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.weights = {"explicit": explicit, "gap": gap, "implicit": implicit}
        widths = {"audio": audio_width, "visual": visual_width}
        self.encoders = nn.ModuleDict(
            {name: MLP(width, hidden, 2 * hidden, layers, dropout=dropout) for name, width in widths.items()}
        )
        self.classifier = head_layer(hidden, num_classes)

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`: embeddings [B, 2H], the explicit half first."""
        audio, audio_logit = self._embed("audio", audio_BA)
        visual, visual_logit = self._embed("visual", visual_BV)
        return PairOutputs(audio, visual, audio_logit, visual_logit)

    def _embed(self, modality: str, vectors: Tensor) -> tuple[Tensor, Tensor]:
        explicit, implicit = self.encoders[modality](vectors).chunk(2, dim=-1)
        unit = nn.functional.normalize
        return torch.cat([unit(explicit, dim=-1), unit(implicit, dim=-1)], dim=-1), self.classifier(implicit)

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        audio_BH, visual_BH = (side.chunk(2, dim=-1)[0] for side in (pair.audio_embedding, pair.visual_embedding))
        assert pair.audio_logit is not None
        assert pair.visual_logit is not None
        batch = GlobalBatch(rows)
        differences_GH = batch.gather(torch.where(rows.counted[:, None], audio_BH - visual_BH, 0.0))
        gap_H = differences_GH.sum(dim=0) / batch.num_counted
        return {
            "explicit": mean_share((audio_BH - visual_BH).square().sum(dim=-1), rows),
            "gap": batch.share(gap_H.square().sum()),
            "implicit": class_loss(pair.audio_logit, rows) + class_loss(pair.visual_logit, rows),
        }

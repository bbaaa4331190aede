"""EICS: explicit and implicit common subspaces of audio and visual vectors.

Source: Zeng et al., Learning explicit and implicit dual common subspaces for audio-visual cross-modal retrieval (ACM
TOMM 2023, doi:10.1145/3564608), as its abstract and VideoAdviser (arXiv:2309.15494, Table 3 and Fig. 4) describe it. No
code was published, and the losses are reconstructed. In the implicit subspace features are to be close to labels: we
read it as the space of labels, in which a vector's place is its logit [B, C].

Shape letters: B batch, G rows of all ranks, H width of the explicit subspace, C classes.
"""

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import MLP, RetrievalStudent, mean_share
from vadv_dist.students.row_losses import label_distance, logits


class Eics(RetrievalStudent):
    """Two encoders with two subspaces each; an embedding is the unit vectors of both subspaces side by side.

    In the explicit subspace the two vectors of a clip are close, and so are the means of the modalities. In the
    implicit one, each modality is close to the one-hot vectors of its classes, which pulls them apart.

    Args:
        audio_width, visual_width: widths of the vectors.
        num_classes: C.
        hidden: H, also the width of the encoders' layers; the last one has the width of both subspaces.
        layers: layers of each encoder.
        explicit, gap, implicit: weights of the terms.
        dropout: dropout of hidden values.
    """

    described = (
        Term("explicit", "Two vectors of a clip", "exp", weight="beta", trains_student=True),
        Term("gap", "Means of the modalities", "gap", weight="beta", trains_student=True),
        Term(
            "implicit",
            "Each vector to its one-hot class",
            "imp",
            weight="beta",
            compares_label=True,
            trains_student=True,
        ),
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
            {name: MLP(width, hidden, hidden + num_classes, layers, dropout=dropout) for name, width in widths.items()}
        )
        self._width = hidden

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`: embeddings [B, H + C], the explicit part first."""
        audio, audio_logit, audio_hidden = self._embed("audio", audio_BA)
        visual, visual_logit, visual_hidden = self._embed("visual", visual_BV)
        return PairOutputs(
            audio, visual, audio_logit, visual_logit, audio_hidden=audio_hidden, visual_hidden=visual_hidden
        )

    def _embed(self, modality: str, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding, logit and hidden values."""
        encoder = self.encoders[modality]
        assert isinstance(encoder, MLP)
        hidden, both = encoder.read(vectors)
        explicit, implicit = both[..., : self._width], both[..., self._width :]
        unit = nn.functional.normalize
        return torch.cat([unit(explicit, dim=-1), unit(implicit, dim=-1)], dim=-1), implicit, hidden

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        audio_BH, visual_BH = (side[:, : self._width] for side in (pair.audio_embedding, pair.visual_embedding))
        audio_logit, visual_logit = logits(pair)
        batch = GlobalBatch(rows)
        differences_GH = batch.gather(torch.where(rows.counted[:, None], audio_BH - visual_BH, 0.0))
        gap_H = differences_GH.sum(dim=0) / batch.num_counted
        return {
            "explicit": mean_share((audio_BH - visual_BH).square().sum(dim=-1), rows),
            "gap": batch.share(gap_H.square().sum()),
            "implicit": label_distance(audio_logit, rows) + label_distance(visual_logit, rows),
        }

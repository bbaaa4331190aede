"""VAE-CCA: variational autoencoders of both modalities with correlated codes (Zhang et al. 2023, ACM TOMM,
arXiv:2112.02601).

Source: the published code, zhangjiwei-japan/visual-audio-cross-modal-retrieval `model_vae.py`, `loss_functions.py` and
`train_model.py`. Two differences: the code draws new random centres for its centre loss at every step, which pulls to
nowhere, and here they are trained; and it sums the divergence over a batch of 128 rows where all else is a mean, so its
weight 1e-4 is 0.0128 here.

Shape letters: B rows of this rank, G rows of all ranks, Z width of the code.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import RetrievalStudent, mean_share
from vadv_dist.students.dscmr import similarity
from vadv_dist.students.row_losses import counted_values, label_distance, logits, pair_distance

TERMS = (
    Term("reconstruction", "Input to its reconstruction", weight="beta", trains_student=True),
    Term("divergence", "Code to a normal distribution", weight="beta", trains_student=True),
    Term("discrimination", "Scores to one-hot class", weight="beta", compares_label=True, trains_student=True),
    Term("similarity", "Pairs of a class against other pairs", weight="beta", compares_label=True, trains_student=True),
    Term("invariance", "Audio to visual code of a clip", weight="beta", trains_student=True),
    Term("center", "Code to the centre of its class", weight="beta", compares_label=True, trains_student=True),
)


class Autoencoded(NamedTuple):
    """What a modality's autoencoder makes of its input [B, X].

    Attributes:
        input, output: the input and its reconstruction, [B, X].
        mean, log_variance: of the code, [B, Z].
    """

    input: Tensor
    output: Tensor
    mean: Tensor
    log_variance: Tensor


class VaeCca(RetrievalStudent):
    """Autoencoders that share all layers but the first and the last; the embedding is the code.

    In training mode the code is drawn from its distribution; otherwise it is the mean.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C.
        hidden: width after the first layer and before the last.
        width: Z.
        reconstruction, divergence, discrimination, similarity, invariance, center: weights of the terms.
    """

    described = TERMS

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        num_classes: int,
        *,
        hidden: int,
        width: int,
        reconstruction: float,
        divergence: float,
        discrimination: float,
        similarity: float,
        invariance: float,
        center: float,
    ) -> None:
        super().__init__()
        self.audio, self.visual = head_layer(audio_width, hidden), head_layer(visual_width, hidden)
        self.shared = head_layer(hidden, width)
        self.mean, self.log_variance = head_layer(width, width), head_layer(width, width)
        self.classifier = head_layer(width, num_classes)
        self.decoder = head_layer(width, hidden)
        self.audio_out, self.visual_out = head_layer(hidden, audio_width), head_layer(hidden, visual_width)
        self.centers = nn.Parameter(torch.randn(num_classes, width))
        self.weights = {
            "reconstruction": reconstruction,
            "divergence": divergence,
            "discrimination": discrimination,
            "similarity": similarity,
            "invariance": invariance,
            "center": center,
        }

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        audio_BZ, audio_hidden, *audio = self._code(audio_BA, self.audio, self.audio_out)
        visual_BZ, visual_hidden, *visual = self._code(visual_BV, self.visual, self.visual_out)
        return PairOutputs(
            audio_BZ,
            visual_BZ,
            self.classifier(audio_BZ),
            self.classifier(visual_BZ),
            own=(*audio, *visual),
            audio_hidden=audio_hidden,
            visual_hidden=visual_hidden,
        )

    def _code(self, values: Tensor, encoder: nn.Module, out: nn.Module) -> tuple[Tensor, ...]:
        """The code, the hidden values that its distribution is made of, and what `Autoencoded` holds."""
        shared = self.shared(torch.relu(encoder(values)))
        mean, log_variance = self.mean(shared), self.log_variance(shared)
        drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return drawn, shared, values, out(self.decoder(drawn)), mean, log_variance

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        batch = GlobalBatch(rows)
        audio_side, visual_side = Autoencoded(*pair.own[:4]), Autoencoded(*pair.own[4:])
        audio, visual = pair.audio_embedding, pair.visual_embedding
        audio_logit, visual_logit = logits(pair)
        # Less the mean of each code, so that its cosines are correlations.
        centred_audio, centred_visual = (one - one.mean(dim=1, keepdim=True) for one in (audio, visual))
        return {
            "reconstruction": reconstruction(audio_side, rows) + reconstruction(visual_side, rows),
            "divergence": divergence(audio_side, rows) + divergence(visual_side, rows),
            "discrimination": label_distance(audio_logit, rows) + label_distance(visual_logit, rows),
            "similarity": similarity(centred_audio, centred_visual, rows),
            "invariance": pair_distance(audio, visual, rows),
            "center": (self._center(audio, rows, batch) + self._center(visual, rows, batch)) / 2,
        }

    def _center(self, code_BZ: Tensor, rows: Rows, batch: GlobalBatch) -> Tensor:
        """Share of a quarter of the mean squared distance to the class centre, less for classes of many rows."""
        gap_BZ = counted_values(code_BZ, rows) - self.centers[counted_values(rows.label, rows).long()]
        same_GG = (batch.label[:, None] == batch.label[None, :]) & batch.counted[None, :]
        distance_G = batch.gather(gap_BZ.square().sum(dim=1)) / same_GG.sum(dim=1).clamp(min=1)
        return batch.share(torch.where(batch.counted, distance_G, 0.0).sum() / batch.num_counted / 4)


def reconstruction(side: Autoencoded, rows: Rows) -> Tensor:
    """Share of the mean squared error of the reconstruction, []."""
    gap_BX = counted_values(side.output, rows) - counted_values(side.input, rows)
    return mean_share(gap_BX.square().mean(dim=1), rows)


def divergence(side: Autoencoded, rows: Rows) -> Tensor:
    """Share of the mean divergence of a code's distribution from a standard normal one, []."""
    mean_BZ, log_BZ = counted_values(side.mean, rows), counted_values(side.log_variance, rows)
    return mean_share((log_BZ.exp() + mean_BZ.square() - 1 - log_BZ).sum(dim=1) / 2, rows)

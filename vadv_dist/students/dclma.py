"""DCLMA: deep correlation learning with multi-modal attention (Zhang et al. 2023, ACM TOMM).

Source: the published code, zhangjiwei-japan/cross-modal-visual-audio-retrieval `cross_model_net_base.py`,
`multi_scale_net.py`, `multi_modal_attention_models.py`, `contrastive_loss.py` and `train_model.py`. There the attention
mixes the audio and the visual vector of a clip before both embeddings are made, also in the evaluation: a query is
embedded together with its answer, and the published mAP is no measure of retrieval. A student here must embed a
modality without the other, so of the attention modules only the parts within a modality are kept: self-attention over
the three scales, and the gate of the scales by the whole vector. Losses and widths are those of the code, except that
inputs of the convolutions are normalised over their features, not over the batch.

Shape letters: B rows of this rank, G rows of all ranks, W width after the first layer, F channels of a scale, E width
of an embedding.
"""

import itertools

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import RetrievalStudent, class_loss
from vadv_dist.students.row_losses import counted_values, logits

TERMS = (
    Term("classification", "Class by the classifier", weight="beta", compares_label=True, trains_student=True),
    Term("intra_modal", "Clips apart within a modality", weight="beta", trains_student=True),
    Term("inter_modal", "Pairs together, other clips apart", weight="beta", trains_student=True),
)
KERNELS = (3, 5, 7)
CHANNELS = (64, 64, 128, 256)


class Dclma(RetrievalStudent):
    """An encoder for each modality; the embedding and the classifier are shared.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C.
        hidden: W, width after the first layer, at least 128, which the convolutions shrink to 1.
        width: E.
        dropout: before the embedding and the classifier's last layer.
        temperature: shift of the similarities in both contrastive terms.
        contrast: weight of these terms next to the classification's 1.
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
        dropout: float,
        temperature: float,
        contrast: float,
    ) -> None:
        super().__init__()
        self.audio, self.visual = MultiScale(audio_width, hidden), MultiScale(visual_width, hidden)
        self.embedding = nn.Sequential(
            head_layer(hidden + len(KERNELS) * CHANNELS[-1], 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            head_layer(512, width),
        )
        self.classifier = nn.Sequential(
            head_layer(width, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, num_classes, bias=False)
        )
        self.temperature = temperature
        self.weights = {"classification": 1.0, "intra_modal": contrast, "inter_modal": contrast}

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        encoded = self.audio(audio_BA), self.visual(visual_BV)
        audio_BE, visual_BE = (self.embedding(one) for one in encoded)
        return PairOutputs(
            audio_BE,
            visual_BE,
            self.classifier(audio_BE),
            self.classifier(visual_BE),
            audio_hidden=encoded[0],
            visual_hidden=encoded[1],
        )

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        audio_logit, visual_logit = logits(pair)
        batch = GlobalBatch(rows)
        audio_GE, visual_GE = (
            batch.gather(counted_values(one, rows)) for one in (pair.audio_embedding, pair.visual_embedding)
        )

        def loss(left_GE: Tensor, right_GE: Tensor) -> Tensor:
            return contrast(left_GE, right_GE, batch.counted, self.temperature)

        return {
            "classification": class_loss(audio_logit, rows) + class_loss(visual_logit, rows),
            "intra_modal": batch.share((loss(audio_GE, audio_GE) + loss(visual_GE, visual_GE)) / 2),
            "inter_modal": batch.share(loss(audio_GE, visual_GE)),
        }


class MultiScale(nn.Module):
    """A linear layer, and convolutions over its output with three kernels, one scale each.

    Args:
        in_features: of the input.
        width: W.
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.whole = nn.Sequential(head_layer(in_features, width), nn.ReLU())
        self.stem = nn.Sequential(nn.LayerNorm(width), nn.Unflatten(1, (1, width)))
        self.stem.append(nn.Conv1d(1, CHANNELS[0], kernel_size=32, stride=8, padding=12))
        self.stem.append(nn.MaxPool1d(2))
        self.scales = nn.ModuleList(_scale(kernel) for kernel in KERNELS)
        fine = CHANNELS[-1]
        self.query, self.key = head_layer(fine, fine), head_layer(fine, fine)
        self.share = nn.Parameter(torch.ones(1))
        self.gate = head_layer(width, len(KERNELS) * fine)

    def forward(self, values: Tensor) -> Tensor:
        """Map [B, in_features] to the gated scales and the whole vector, [B, 3 F + W]."""
        whole_BW = self.whole(values)
        stem = self.stem(whole_BW)
        scales_BSF = torch.stack([scale(stem) for scale in self.scales], dim=1)
        weight_BSS = self.query(scales_BSF) @ self.key(scales_BSF).transpose(1, 2) * CHANNELS[-1] ** -0.5
        fine_BSF = scales_BSF + self.share * (weight_BSS.softmax(dim=-1) @ scales_BSF)
        flat = fine_BSF.flatten(1)
        return torch.cat([torch.sigmoid(flat + self.gate(whole_BW)) * flat, whole_BW], dim=1)


def _scale(kernel: int) -> nn.Sequential:
    """Three convolutions that halve the length, and the maximum over what is left."""
    layers: list[nn.Module] = []
    for inward, outward in itertools.pairwise(CHANNELS):
        layers += [nn.Conv1d(inward, outward, kernel, padding=kernel // 2), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool1d(1), nn.Flatten())


def contrast(left_GE: Tensor, right_GE: Tensor, counted_G: Tensor, temperature: float) -> Tensor:
    """Contrast of a clip's own pair with all pairs of different clips, whatever their classes.

    Args:
        left_GE, right_GE: embeddings.
        counted_G: true for rows that count.
        temperature: t.
    Returns:
        half the mean of log(1 + exp(t - cosine)) over own pairs, and half that of log(1 + exp(cosine - t)) over others.
    """
    cosine_GG = nn.functional.normalize(left_GE, dim=1) @ nn.functional.normalize(right_GE, dim=1).T
    own_GG = torch.diag(counted_G)
    other_GG = (counted_G[:, None] & counted_G[None, :]) & ~own_GG
    together = torch.where(own_GG, nn.functional.softplus(temperature - cosine_GG), 0.0).sum() / own_GG.sum().clamp(1)
    apart = torch.where(other_GG, nn.functional.softplus(cosine_GG - temperature), 0.0).sum() / other_GG.sum().clamp(1)
    return (together + apart) / 2

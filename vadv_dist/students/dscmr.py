"""DSCMR: deep supervised cross-modal retrieval (Zhen et al. 2019, CVPR).

Source: the published code, penghu-cs/DSCMR `train_model.py: calc_loss`, `model.py` and `main.py`. Where it differs from
the paper, the code is followed: it takes the mean of the distances of rows, not the norm of the whole matrix, in the
first and third term, and the mean over pairs, not the sum, in the second.

Shape letters: B rows of this rank, G rows of all ranks, E width of an embedding.
"""

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.row_losses import counted_values, label_distance, logits, pair_distance

TERMS = (
    Term("discrimination", "Scores to one-hot class", weight="beta", compares_label=True, trains_student=True),
    Term("similarity", "Pairs of a class against other pairs", weight="beta", compares_label=True, trains_student=True),
    Term("invariance", "Audio to visual embedding of a clip", weight="beta", trains_student=True),
)


class Dscmr(RetrievalStudent):
    """One layer for each modality, and two that both share: the embedding, and scores of classes.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C.
        hidden: width after the layer of a modality.
        width: E.
        similarity, invariance: weights of these terms next to the discrimination's 1.
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
        similarity: float,
        invariance: float,
    ) -> None:
        super().__init__()
        self.audio = head_layer(audio_width, hidden)
        self.visual = head_layer(visual_width, hidden)
        self.embedding = head_layer(hidden, width)
        self.classifier = head_layer(width, num_classes)
        self.weights = {"discrimination": 1.0, "similarity": similarity, "invariance": invariance}

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        audio_hidden, visual_hidden = torch.relu(self.audio(audio_BA)), torch.relu(self.visual(visual_BV))
        audio_BE, visual_BE = self.embedding(audio_hidden), self.embedding(visual_hidden)
        return PairOutputs(
            audio_BE,
            visual_BE,
            self.classifier(audio_BE),
            self.classifier(visual_BE),
            audio_hidden=audio_hidden,
            visual_hidden=visual_hidden,
        )

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        audio_BE, visual_BE = pair.audio_embedding, pair.visual_embedding
        audio_logit, visual_logit = logits(pair)
        return {
            "discrimination": label_distance(audio_logit, rows) + label_distance(visual_logit, rows),
            "similarity": similarity(audio_BE, visual_BE, rows),
            "invariance": pair_distance(audio_BE, visual_BE, rows),
        }


def similarity(audio_BE: Tensor, visual_BE: Tensor, rows: Rows) -> Tensor:
    """Share of the likelihood loss of all pairs, within each modality and between both, []."""
    batch = GlobalBatch(rows)
    audio_GE, visual_GE = (batch.gather(counted_values(one, rows)) for one in (audio_BE, visual_BE))
    pairs = ((audio_GE, audio_GE), (audio_GE, visual_GE), (visual_GE, visual_GE))
    losses = [pair_likelihood(left, right, batch.label, batch.counted) for left, right in pairs]
    return batch.share(torch.stack(losses).sum())


def pair_likelihood(left_GE: Tensor, right_GE: Tensor, label_G: Tensor, counted_G: Tensor) -> Tensor:
    """Mean over pairs of log(1 + exp θ) - s θ, with θ half the cosine and s = 1 for pairs of one class, else 0.

    The negative log-likelihood of s if a pair has one class with probability sigmoid(θ).
    """
    cosine_GG = nn.functional.normalize(left_GE, dim=1) @ nn.functional.normalize(right_GE, dim=1).T
    theta_GG = cosine_GG / 2
    same_GG = label_G[:, None] == label_G[None, :]
    counted_GG = counted_G[:, None] & counted_G[None, :]
    loss_GG = nn.functional.softplus(theta_GG) - torch.where(same_GG, theta_GG, 0.0)
    return torch.where(counted_GG, loss_GG, 0.0).sum() / counted_GG.sum().clamp(min=1)

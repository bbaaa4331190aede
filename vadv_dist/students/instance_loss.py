"""Instance loss (DCIL in the tables): dual-path embeddings that share a classifier (Zheng et al. 2020, ACM TOMM,
arXiv:1711.05535).

Source: the paper and its MATLAB code, layumi/Image-Text-Embedding (`RankLoss_old.m`: one negative of each pair, cosine
of normalised embeddings, margin 1). There every pair of an image and a text is a class of its own; here the classes are
those of the clips, as far as we can tell the only reading that fits the published mAP by class. A negative
is then a clip of another class, and all of a batch's are used. Both losses are trained together (the paper's second
stage).

Shape letters: G rows of all ranks, E width of an embedding.
"""

import torch
from torch import Tensor

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import MLP, RetrievalStudent, class_loss
from vadv_dist.students.row_losses import counted_values, logits
from vadv_dist.students.triplets import cosine_distance, relations

TERMS = (
    Term("instance", "Class by the shared classifier", weight="beta", compares_label=True, trains_student=True),
    Term("ranking", "Own pair nearer than other classes", weight="beta", compares_label=True, trains_student=True),
)


class InstanceLoss(RetrievalStudent):
    """A two-layer perceptron for each modality, and one classifier for both.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C.
        hidden: width of the hidden layer.
        width: E.
        dropout: before the classifier.
        margin: of the ranking, in cosine.
        ranking: weight of the ranking next to the instance loss' 1.
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
        margin: float,
        ranking: float,
    ) -> None:
        super().__init__()
        self.audio = MLP(audio_width, hidden, width, layers=2)
        self.visual = MLP(visual_width, hidden, width, layers=2)
        self.drop = torch.nn.Dropout(dropout)
        self.classifier = head_layer(width, num_classes)
        self.margin = margin
        self.weights = {"instance": 1.0, "ranking": ranking}

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        (audio_hidden, audio_BE), (visual_hidden, visual_BE) = self.audio.read(audio_BA), self.visual.read(visual_BV)
        audio_logit, visual_logit = (self.classifier(self.drop(one)) for one in (audio_BE, visual_BE))
        return PairOutputs(
            audio_BE, visual_BE, audio_logit, visual_logit, audio_hidden=audio_hidden, visual_hidden=visual_hidden
        )

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        audio_logit, visual_logit = logits(pair)
        batch = GlobalBatch(rows)
        audio_GE, visual_GE = (
            batch.gather(counted_values(one, rows)) for one in (pair.audio_embedding, pair.visual_embedding)
        )
        distance_GG = cosine_distance(audio_GE, visual_GE)
        is_negative_GG = relations(batch.label, batch.counted)[1]
        loss = ranking(distance_GG, is_negative_GG, self.margin) + ranking(distance_GG.T, is_negative_GG, self.margin)
        return {
            "instance": class_loss(audio_logit, rows) + class_loss(visual_logit, rows),
            "ranking": batch.share(loss),
        }


def ranking(distance_GG: Tensor, is_negative_GG: Tensor, margin: float) -> Tensor:
    """Mean over all negatives of max(0, d(anchor, its pair) - d(anchor, negative) + margin), []; 0 without any."""
    loss_GG = (distance_GG.diagonal()[:, None] - distance_GG + margin).clamp(min=0)
    return torch.where(is_negative_GG, loss_GG, 0.0).sum() / is_negative_GG.sum().clamp(min=1)

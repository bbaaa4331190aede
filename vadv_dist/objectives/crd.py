"""CRD: teacher's and student's embeddings of one row agree, and those of different rows do not.

Source: Tian et al., "Contrastive Representation Distillation", arXiv:1910.10699, eq. 17-19 and the published code.

Shape letters: N training rows, G rows of all ranks' micro-batches, K negatives, E width of an embedding.
"""

import torch
from torch import Tensor, nn

from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.distillation import Distillation, teaching_term
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.masking import counted_values, ratio
from vadv_dist.objectives.memory_bank import MemoryBank
from vadv_dist.objectives.outputs import Rows, View

# Added to denominators; published code.
_EPS = 1e-7


def scores(anchor_GE: Tensor, positive_GE: Tensor, negative_KE: Tensor, temperature: float) -> Tensor:
    """Unnormalised scores of each anchor with its positive, then with the negatives, [G, 1 + K].

    Args:
        anchor_GE: embeddings of one model.
        positive_GE: stored embeddings of the same rows by the other model.
        negative_KE: stored embeddings of drawn rows by the other model, the same for all anchors.
        temperature: T.
    """
    positive_G1 = (anchor_GE * positive_GE).sum(dim=1, keepdim=True)
    return (torch.cat([positive_G1, anchor_GE @ negative_KE.T], dim=1) / temperature).exp()


def first_scale(scores_GK: Tensor, counts_G: Tensor, num_rows: int) -> Tensor:
    """The normalisation constant that the first rows decide: N times their mean score, []; 0 if no row counts."""
    total = torch.where(counts_G[:, None], scores_GK.detach(), 0.0).sum()
    return ratio(total, counts_G.sum() * scores_GK.shape[1]) * num_rows


def contrastive_loss(scores_GK: Tensor, counts_G: Tensor, scale: Tensor, num_rows: int) -> Tensor:
    """Noise-contrastive estimation: tell the positive from K rows drawn uniformly from N.

    Args:
        scores_GK: result of `scores`, the positive first, [G, 1 + K].
        counts_G: true for the anchors that count, [G].
        scale: the scores' normalisation constant, [].
        num_rows: N.
    Returns:
        mean over anchors of the sum over positive and negatives, [], fp32 or wider; 0 where no anchor counts.
    """
    probability_GK = scores_GK / torch.where(scale > 0, scale, 1.0)
    noise = (scores_GK.shape[1] - 1) / num_rows
    positive_G, negative_GK = probability_GK[:, 0], probability_GK[:, 1:]
    loss_G = (1 + (noise + _EPS) / positive_G).log() + ((negative_GK + noise + _EPS) / noise).log().sum(dim=1)
    return ratio(torch.where(counts_G, loss_G, 0.0).sum(), counts_G.sum())


class CRD(Distillation):
    """`contrastive_loss` of the student against stored embeddings of the teacher, plus the reverse.

    Both models' features are projected to E values of norm 1 by trained linear layers. Two differences from the
    published code: all anchors of a micro-batch share the K negatives, which takes K reads instead of G · K; and a
    negative may have the anchor's class or be its own row, as noise-contrastive estimation assumes (torchdistill draws
    so too).

    Negatives are drawn and the bank is updated once per micro-batch.

    Args:
        teacher_width, student_width: widths of the features.
        num_rows: N, the rows of the training split.
        width: E.
        negatives: K.
        temperature: T.
        momentum: share of a stored embedding that an update keeps.
        seed: decides which negatives are drawn.
    """

    reads = "features"
    described = (teaching_term("crd", "Contrast with stored rows", "CRD"),)

    def __init__(
        self,
        *,
        teacher_width: int,
        student_width: int,
        num_rows: int,
        width: int,
        negatives: int,
        temperature: float,
        momentum: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.teacher_projection = head_layer(teacher_width, width)
        self.student_projection = head_layer(student_width, width)
        self.bank = MemoryBank(num_rows, width=width, seed=seed, momentum=momentum)
        self.negatives, self.temperature = negatives, temperature

    def forward(self, teacher: View, student: View, rows: Rows) -> dict[str, Tensor]:
        """See `Distillation.forward`."""
        batch = GlobalBatch(rows)
        counts_G = batch.counted
        teacher_GE = batch.gather(_unit(self.teacher_projection(counted_values(teacher.features, rows))))
        student_GE = batch.gather(_unit(self.student_projection(counted_values(student.features, rows))))
        bank, size = self.bank, len(counts_G)
        asked = torch.cat([torch.where(counts_G, batch.row_id, -1), bank.draw(self.negatives)])
        teacher_bank, student_bank = bank.read(asked)
        both = (
            scores(student_GE, teacher_bank[:size], teacher_bank[size:], self.temperature),
            scores(teacher_GE, student_bank[:size], student_bank[size:], self.temperature),
        )
        scale = bank.scale.to(teacher_GE.dtype)
        scale = torch.where(scale > 0, scale, torch.stack([first_scale(s, counts_G, bank.num_rows) for s in both]))
        losses = [contrastive_loss(s, counts_G, z, bank.num_rows) for s, z in zip(both, scale.unbind(), strict=True)]
        if self.training and torch.is_grad_enabled():
            bank.update(batch.row_id, counts_G, teacher_GE, student_GE)
            bank.scale.copy_(scale)
        return {"crd": batch.share(losses[0] + losses[1])}


def _unit(values: Tensor) -> Tensor:
    return nn.functional.normalize(values, dim=-1)

"""C-DCCA: deep networks whose outputs are correlated over all pairs of a class (Yu et al. 2019, IEEE TNNLS).

Source: the published code, ZenzenDatabase/CMR `Category_DCCA.py` and `objectives.py`: three sigmoid layers and a linear
one for each modality; the loss is minus the correlation of a batch, with a share of the covariance taken from each
clip's own pair; linear cluster-CCA of the outputs gives the embeddings. Differences: the code takes the root of the sum
of squared correlations, where we follow deep CCA (Andrew et al. 2013, ICML), the sum of the first correlations; it
weights classes as its `linear_cca.py` does (see `c_cca.py`); it normalises inputs over a batch, here over their
features, which does not depend on other rows; and it computes the linear projections once after training, where ours
come from running averages of the covariances of batches.

A batch should have several times as many rows as the networks have outputs; the code uses 200 to 500 for 100 pair.

Shape letters: B rows of this rank, G rows of all ranks, H width of the outputs, K components.
"""

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.c_cca import constant
from vadv_dist.students.cluster_cca import Covariances, batch_covariances, coherence, solve
from vadv_dist.students.encoders import mlp
from vadv_dist.students.row_losses import counted_values

TERMS = (
    Term("correlation", "Correlation of pairs of a class", weight="beta", compares_label=True, trains_student=True),
)
MOMENTUM = 0.1  # of a batch's covariances in the running ones, as batch normalisation has


class CDcca(RetrievalStudent):
    """A network for each modality, and linear projections that follow them.

    Args:
        audio_width, visual_width: of the inputs.
        num_classes: C.
        hidden: H, width of all layers.
        components: K, at most H; None is one less than the classes.
        ridge: added to the variances.
        dropout: after every hidden layer.
        paired: share of the covariance that is taken from each clip's own pair.
    Raises:
        ValueError: more components than the networks have pair.
    """

    described = TERMS

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        num_classes: int,
        *,
        hidden: int,
        components: int | None,
        ridge: float,
        dropout: float,
        paired: float,
    ) -> None:
        super().__init__()
        self.components = min(num_classes - 1, hidden) if components is None else components
        if self.components > hidden:
            raise ValueError(f"components is {components}, expected at most {hidden}, the width of the layers.")
        self._num_classes, self._ridge, self._paired = num_classes, ridge, paired
        self.audio, self.visual = (
            nn.Sequential(nn.LayerNorm(width), *mlp(width, *[hidden] * 4, activation="sigmoid", dropout=dropout))
            for width in (audio_width, visual_width)
        )
        self.num_updates = constant(1)
        self.mean_x, self.mean_y = constant(hidden), constant(hidden)
        self.xx, self.yy, self.xy = (constant(hidden, hidden) for _ in range(3))
        self.audio_map, self.visual_map = (constant(hidden, self.components) for _ in range(2))
        self.weights = {"correlation": 1.0}

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        audio_BH, visual_BH = self.audio(audio_BA), self.visual(visual_BV)
        # Copies: `terms` changes the projections before the backward pass.
        audio_BK = (audio_BH - self.mean_x) @ self.audio_map.clone()
        visual_BK = (visual_BH - self.mean_y) @ self.visual_map.clone()
        return PairOutputs(audio_BK, visual_BK, own=(audio_BH, visual_BH))

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        batch = GlobalBatch(rows)
        audio_GH, visual_GH = (batch.gather(counted_values(one, rows)) for one in pair.own)
        covariances = batch_covariances(
            audio_GH, visual_GH, batch.label, batch.counted, self._num_classes, paired=self._paired
        )
        if self.training and torch.is_grad_enabled():
            self._update(covariances)
        whitened = coherence(covariances, self._ridge)[0]
        correlations = torch.linalg.svdvals(whitened)[: self.components]
        return {"correlation": batch.share(-correlations.sum().float())}

    @torch.no_grad()
    def _update(self, batch: Covariances) -> None:
        """Update the running averages and the projections; all ranks do so with the same batch."""
        self.num_updates.add_(1)
        share = max(MOMENTUM, 1 / float(self.num_updates))
        for name, value in vars(batch).items():
            running = getattr(self, name)
            running.lerp_(value.to(running.dtype), share)
        running = Covariances(*(getattr(self, name).double() for name in vars(batch)))
        found = solve(running, components=self.components, ridge=self._ridge)
        self.audio_map.copy_(found.x)
        self.visual_map.copy_(found.y)

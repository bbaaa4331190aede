"""C-DCCA: deep networks whose outputs are correlated over all pairs of a class (Yu et al. 2019, IEEE TNNLS).

Source: the published code, ZenzenDatabase/CMR `Category_DCCA.py` and `objectives.py`: three sigmoid layers and a linear
one for each modality; the loss is minus the correlation of a batch, with a share of the covariance taken from each
clip's own pair; linear cluster-CCA of the outputs gives the embeddings. Differences: the code takes the root of the sum
of squared correlations, where we follow deep CCA (Andrew et al. 2013, ICML), the sum of the first correlations; it
weights classes as its `linear_cca.py` does (see `c_cca.py`); it normalises inputs over a batch, here over their
features, which does not depend on other rows; and it computes the linear projections once after training, where ours
come from running averages of the covariances of batches.

A batch should have several times as many rows as the networks have outputs; the code uses 200 to 500 for 100 outputs.

Shape letters: B rows of this rank, G rows of all ranks, H width of the outputs, K components.
"""

import torch
from torch import Tensor, nn

from vadv_dist.evaluation.description import Term
from vadv_dist.models.heads import head_layer
from vadv_dist.objectives.global_batch import GlobalBatch
from vadv_dist.objectives.outputs import PairOutputs, Rows
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.c_cca import num_components
from vadv_dist.students.cluster_cca import Covariances, batch_covariances, coherence, solve
from vadv_dist.students.encoders import saturating
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
        UserError: see `num_components`.
    """

    predicts_classes = False
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
        self.components = num_components(components, num_classes, hidden)
        self._num_classes, self._ridge, self._paired = num_classes, ridge, paired
        self.audio, self.visual = (
            nn.Sequential(
                nn.LayerNorm(width),
                *saturating(width, *[hidden] * 3, activation=nn.Sigmoid, dropout=dropout),
                head_layer(hidden, hidden),
            )
            for width in (audio_width, visual_width)
        )
        self.linear = RunningCca(hidden, self.components, ridge)
        self.weights = {"correlation": 1.0}

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        audio_BH, visual_BH = self.audio(audio_BA), self.visual(visual_BV)
        audio_BK, visual_BK = self.linear(audio_BH, visual_BH)
        own = (audio_BH, visual_BH)
        return PairOutputs(audio_BK, visual_BK, own=own, audio_hidden=audio_BH, visual_hidden=visual_BH)

    def terms(self, pair: PairOutputs, rows: Rows) -> dict[str, Tensor]:
        """See `RetrievalStudent.terms`."""
        batch = GlobalBatch(rows)
        audio_GH, visual_GH = (batch.gather(counted_values(one, rows)) for one in pair.own)
        covariances = batch_covariances(
            audio_GH, visual_GH, batch.label, batch.counted, self._num_classes, paired=self._paired
        )
        if self.training and torch.is_grad_enabled():
            self.linear.update(covariances)
        whitened = coherence(covariances, self._ridge)[0]
        correlations = torch.linalg.svdvals(whitened)[: self.components]
        return {"correlation": batch.share(-correlations.sum().float())}


class RunningCca(nn.Module):
    """Linear projections from running averages of the covariances of batches.

    Args:
        hidden: H.
        components: K.
        ridge: added to the variances.
    """

    num_updates: Tensor
    mean_x: Tensor
    mean_y: Tensor
    audio_map: Tensor
    visual_map: Tensor

    def __init__(self, hidden: int, components: int, ridge: float) -> None:
        super().__init__()
        self._components, self._ridge = components, ridge
        self.register_buffer("num_updates", torch.zeros(1))
        for name in ("mean_x", "mean_y"):
            self.register_buffer(name, torch.zeros(hidden))
        for name in ("xx", "yy", "xy"):
            self.register_buffer(name, torch.zeros(hidden, hidden))
        for name in ("audio_map", "visual_map"):
            self.register_buffer(name, torch.zeros(hidden, components))

    def forward(self, audio_BH: Tensor, visual_BH: Tensor) -> tuple[Tensor, Tensor]:
        """Project the networks' outputs to [B, K] each."""
        # Copies: `update` changes the projections before the backward pass.
        audio_BK = (audio_BH - self.mean_x) @ self.audio_map.clone()
        return audio_BK, (visual_BH - self.mean_y) @ self.visual_map.clone()

    @torch.no_grad()
    def update(self, batch: Covariances) -> None:
        """Update the averages and the projections; all ranks do so with the same batch."""
        self.num_updates.add_(1)
        share = max(MOMENTUM, 1 / float(self.num_updates))
        averages = {name: getattr(self, name) for name in vars(batch)}
        for name, average in averages.items():
            average.lerp_(getattr(batch, name).to(average.dtype), share)
        running = Covariances(**{name: average.double() for name, average in averages.items()})
        found = solve(running, components=self._components, ridge=self._ridge)
        self.audio_map.copy_(found.x)
        self.visual_map.copy_(found.y)

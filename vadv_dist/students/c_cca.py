"""C-CCA: linear projections by cluster-CCA, in closed form (Rasiwasia et al. 2014, AISTATS).

Source: the paper; the ridge 1e-4 is that of the published code, ZenzenDatabase/CMR `linear_cca.py`. That code weights
the classes in the covariance across modalities by the squares of their sizes, but not in those within a modality, and
keeps as many components as there are classes, of which the last has no correlation. Here all three are those of the
listed pairs, and `components` is by default one less than the classes. Embeddings weighted by a power of the
correlations: Gong et al. 2014, IJCV, arXiv:1212.4522 (with power 4).

Shape letters: A, V widths of the inputs, K components.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vadv_dist.objectives.outputs import PairOutputs
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.cluster_cca import ClassMoments, solve


class LinearCca(nn.Module):
    """Both projections of cluster-CCA as constants that `fit` sets.

    Args:
        audio_width, visual_width: A, V.
        num_classes: C.
        components: K; None is one less than the classes, or the width of the narrower input if that is less.
        ridge: added to the variances.
        power: of the correlations, as weights of the components; 0 weights them equally.
    Raises:
        ValueError: more components than an input has dimensions.
    """

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        num_classes: int,
        *,
        components: int | None,
        ridge: float,
        power: float = 0.0,
    ) -> None:
        super().__init__()
        narrower = min(audio_width, visual_width)
        self.width = min(num_classes - 1, narrower) if components is None else components
        if self.width > narrower:
            raise ValueError(f"components is {components}, expected at most {narrower}, the width of the inputs.")
        self._num_classes, self._ridge, self._power = num_classes, ridge, power
        self.audio_mean, self.visual_mean = constant(audio_width), constant(visual_width)
        self.audio_map, self.visual_map = constant(audio_width, self.width), constant(visual_width, self.width)

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Project inputs to [B, K] each."""
        audio_BK = (audio_BA.to(self.audio_map.dtype) - self.audio_mean) @ self.audio_map
        return audio_BK, (visual_BV.to(self.visual_map.dtype) - self.visual_mean) @ self.visual_map

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Set the projections to those of the clips: see `RetrievalStudent.fit`."""
        moments = ClassMoments(self._num_classes, len(self.audio_mean), len(self.visual_mean))
        for audio, visual, label in batches:
            moments.add(audio.cpu(), visual.cpu(), label.cpu().long())
        covariances = moments.covariances()
        found = solve(covariances, components=self.width, ridge=self._ridge)
        weight_K = found.correlations**self._power
        with torch.no_grad():
            self.audio_mean.copy_(covariances.mean_x)
            self.visual_mean.copy_(covariances.mean_y)
            self.audio_map.copy_(found.x * weight_K)
            self.visual_map.copy_(found.y * weight_K)


class CCca(RetrievalStudent):
    """Linear projections of both modalities; the arguments are those of `LinearCca`."""

    in_closed_form = True

    def __init__(
        self,
        audio_width: int,
        visual_width: int,
        num_classes: int,
        *,
        components: int | None,
        ridge: float,
        power: float,
    ) -> None:
        super().__init__()
        self.cca = LinearCca(audio_width, visual_width, num_classes, components=components, ridge=ridge, power=power)
        self.weights = {}

    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """See `RetrievalStudent.fit`."""
        self.cca.fit(batches)

    def forward(self, audio_BA: Tensor, visual_BV: Tensor) -> PairOutputs:
        """See `RetrievalStudent.forward`."""
        return PairOutputs(*self.cca(audio_BA, visual_BV))


def constant(*shape: int) -> nn.Parameter:
    """Numbers that are not trained; a parameter rather than a buffer, so that it is in fp32 whatever the model is."""
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)

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

from vadv_dist.errors import UserError
from vadv_dist.objectives.outputs import PairOutputs
from vadv_dist.students.base import RetrievalStudent
from vadv_dist.students.cluster_cca import ClassMoments, solve


class LinearCca(nn.Module):
    """Both projections of cluster-CCA, which `fit` sets; always in fp32.

    Args:
        audio_width, visual_width: A, V.
        num_classes: C.
        components: K; None is one less than the classes, or the width of the narrower input if that is less.
        ridge: added to the variances.
        power: of the correlations, as weights of the components; 0 weights them equally.
    Raises:
        UserError: see `num_components`.
    """

    computes_in_fp32 = True

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
        self.width = num_components(components, num_classes, min(audio_width, visual_width))
        self._num_classes, self._ridge, self._power = num_classes, ridge, power
        self.audio_mean, self.visual_mean = zeros(audio_width), zeros(visual_width)
        self.audio_map, self.visual_map = zeros(audio_width, self.width), zeros(visual_width, self.width)

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
    predicts_classes = False

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


def num_components(components: int | None, num_classes: int, width: int) -> int:
    """Number of components of an embedding; None is one less than the classes, or the width if that is less.

    Raises:
        UserError: there is only one class, or the views that are projected are narrower.
    """
    if num_classes < 2:
        raise UserError("The data set has one class, but correlation within classes needs at least 2.")
    if components is not None and components > width:
        raise UserError(
            f"student.components is {components}, but the vectors that are projected have {width} values. Set it to "
            f"{width} or less."
        )
    return min(num_classes - 1, width) if components is None else components


def zeros(*shape: int) -> nn.Parameter:
    """Numbers that are determined later."""
    return nn.Parameter(torch.zeros(*shape))

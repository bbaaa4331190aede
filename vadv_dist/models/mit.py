"""The multi-frame integration transformer: a sequence of frames becomes one vector.

Shape letters: B batch, T frames, D width.
"""

from torch import Tensor, nn

from vadv_dist.models.attention import POSITION_STD, TransformerLayer, learnable


class MultiFrameIntegrationTransformer(nn.Module):
    """Pre-norm layers over frames with learnable positions, a residual from the input, then the mean over frames.

    Source: X-CLIP (Ni et al., arXiv:2208.02816); VideoAdviser, arXiv:2309.15494, eq. 4-5. Equal to
    `XCLIPMultiframeIntegrationTransformer` of transformers.

    Args:
        width: D.
        heads: attention heads.
        layers: number of layers, at least 1.
        num_frames: T.
        dropout: dropout of attention weights and hidden values.
    Raises:
        ValueError: there are no layers, or the width is not divisible by the heads.
    """

    def __init__(self, *, width: int, heads: int, layers: int, num_frames: int, dropout: float = 0.0) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"A multi-frame integration transformer needs at least 1 layer, not {layers}.")
        self.positions = learnable(num_frames, width, std=POSITION_STD)
        self.layers = nn.ModuleList(
            TransformerLayer(width=width, heads=heads, layers=layers, dropout=dropout) for _ in range(layers)
        )

    def forward(self, frames_BTD: Tensor) -> Tensor:
        """Return one vector per video, [B, D].

        Args:
            frames_BTD: one vector per frame, [B, T, D].
        Raises:
            ValueError: the number of frames differs from `num_frames`.
        """
        if frames_BTD.shape[1] != len(self.positions):
            raise ValueError(f"Got {frames_BTD.shape[1]} frames, expected {len(self.positions)}.")
        frames_BTD = frames_BTD.to(self.positions.dtype)
        integrated = frames_BTD + self.positions
        for layer in self.layers:
            integrated = layer(integrated)
        return (integrated + frames_BTD).mean(dim=1)

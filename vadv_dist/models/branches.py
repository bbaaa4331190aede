"""The teacher's branches: video frames, facial expression, and audio.

Shape letters: B batch, T frames, N visual tokens per frame, D width, Dv, Da width of the stored visual and audio
features, E expression scores.
"""

import torch
from torch import Tensor, nn

from vadv_dist.models.attention import linear
from vadv_dist.models.cct import CrossFrameCommunicationTransformer
from vadv_dist.models.mit import MultiFrameIntegrationTransformer


class VisualBranch(nn.Module):
    """Frames to tokens and to one vector: CCT, then LayerNorm and projection of the class tokens, then MIT (eq. 5).

    The LayerNorm and the projection between CCT and MIT are X-CLIP's (`post_layernorm`, `visual_projection`).

    Args:
        shape: (T, N, Dv) of a clip's features.
        width: D; features of another width are projected to it first.
        heads: attention heads.
        cct_layers: layers of the CCT; with 0 there is no CCT, and the mean of a frame's tokens replaces the class
            token.
        mit_layers: layers of the MIT; with 0 there is no MIT, and the mean over frames is used.
        dropout: dropout of attention weights and hidden values.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        width: int,
        heads: int,
        cct_layers: int,
        mit_layers: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        num_frames, num_tokens, feature_width = shape
        self.feature_projection = linear(feature_width, width) if feature_width != width else None
        self.cct = (
            CrossFrameCommunicationTransformer(
                width=width, heads=heads, layers=cct_layers, num_tokens=num_tokens, dropout=dropout
            )
            if cct_layers
            else None
        )
        self.frame_norm = nn.LayerNorm(width)
        self.frame_projection = linear(width, width, bias=False)
        self.mit = (
            MultiFrameIntegrationTransformer(
                width=width, heads=heads, layers=mit_layers, num_frames=num_frames, dropout=dropout
            )
            if mit_layers
            else None
        )

    def forward(self, visual_BTND: Tensor) -> tuple[Tensor, Tensor]:
        """Return one vector per video [B, D] and the tokens of each frame, class token first, [B, T, 1+N, D].

        Args:
            visual_BTND: stored features, [B, T, N, Dv], of any floating-point type.
        """
        tokens = visual_BTND.to(self.frame_projection.weight.dtype)
        if self.feature_projection is not None:
            tokens = self.feature_projection(tokens)
        if self.cct is not None:
            tokens = self.cct(tokens)
        else:
            tokens = torch.cat([tokens.mean(dim=2, keepdim=True), tokens], dim=2)
        frames_BTD = self.frame_projection(self.frame_norm(tokens[:, :, 0]))
        video_BD = frames_BTD.mean(dim=1) if self.mit is None else self.mit(frames_BTD)
        return video_BD, tokens


class FaceBranch(nn.Module):
    """Expression scores of each face crop to one vector: linear E → D, then MIT (eq. 4).

    Args:
        shape: (T, E) of a clip's features.
        width: D.
        heads: attention heads.
        mit_layers: layers of the MIT; with 0 there is no MIT, and the mean over frames is used.
        dropout: dropout of attention weights and hidden values.
    """

    def __init__(
        self, *, shape: tuple[int, int], width: int, heads: int, mit_layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        num_frames, num_scores = shape
        self.score_projection = linear(num_scores, width)
        self.mit = (
            MultiFrameIntegrationTransformer(
                width=width, heads=heads, layers=mit_layers, num_frames=num_frames, dropout=dropout
            )
            if mit_layers
            else None
        )

    def forward(self, face_BTE: Tensor) -> Tensor:
        """Return one vector per video, [B, D].

        Args:
            face_BTE: expression scores, [B, T, E], of any floating-point type.
        """
        frames_BTD = self.score_projection(face_BTE.to(self.score_projection.weight.dtype))
        return frames_BTD.mean(dim=1) if self.mit is None else self.mit(frames_BTD)


class AudioBranch(nn.Module):
    """Audio features to one vector, as the facial branch does: linear Da → D, then MIT. The paper has none.

    Descriptors such as COVAREP's differ in scale by orders of magnitude (a pitch of 200 Hz beside a ratio of 0.1).
    asinh, a logarithm that keeps the sign, and LayerNorm bring them together.

    Args:
        shape: (T, Da) of a clip's features, or (Da,) for a vector.
        width: D.
        heads: attention heads.
        mit_layers: layers of the MIT; with 0 or for a vector there is no MIT, and the mean over steps is used.
        dropout: dropout of attention weights and hidden values.
    """

    def __init__(
        self, *, shape: tuple[int, ...], width: int, heads: int, mit_layers: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(shape[-1])
        self.projection = linear(shape[-1], width)
        self.mit = (
            MultiFrameIntegrationTransformer(
                width=width, heads=heads, layers=mit_layers, num_frames=shape[0], dropout=dropout
            )
            if mit_layers and len(shape) > 1
            else None
        )

    def forward(self, audio: Tensor) -> Tensor:
        """Return one vector per clip, [B, D].

        Args:
            audio: features, [B, T, Da] or [B, Da], of any floating-point type.
        """
        audio_BTD = self.projection(self.input_norm(audio.to(self.projection.weight.dtype).asinh()))
        if audio_BTD.ndim == 2:
            return audio_BTD
        return audio_BTD.mean(dim=1) if self.mit is None else self.mit(audio_BTD)

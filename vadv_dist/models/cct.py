"""The cross-frame communication transformer: attention within each frame, with messages between frames.

Shape letters: B batch, T frames, N visual tokens per frame, D width.
"""

import torch
from torch import Tensor, nn

from vadv_dist.models.attention import POSITION_STD, FeedForward, SelfAttention, learnable, linear


class CrossFrameCommunicationLayer(nn.Module):
    """One layer: frames exchange messages, then each frame's tokens attend to each other and to their message.

    m_t = W z_t[class] and M̂ = M + MHA(LN(M)) across frames; [ẑ_t, ·] = [z_t, m̂_t] + MHA(LN([z_t, m̂_t])) within a frame,
    after which the message is dropped; z = ẑ + MLP(LN(ẑ)).

    Args:
        width: D.
        heads: attention heads.
        layers: number of layers of the whole transformer, for the initialisation.
        dropout: dropout of attention weights and hidden values.
    """

    def __init__(self, *, width: int, heads: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.message = linear(width, width)
        self.message_norm = nn.LayerNorm(width)
        self.message_attention = SelfAttention(width=width, heads=heads, layers=layers, dropout=dropout)
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width=width, heads=heads, layers=layers, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width=width, layers=layers, dropout=dropout)

    def forward(self, tokens_BTND: Tensor) -> Tensor:
        """Return the frames' tokens, class token first, [B, T, 1+N, D]."""
        batch, _, num_tokens, _ = tokens_BTND.shape
        message_BTD = self.message(tokens_BTND[:, :, 0])
        message_BTD = message_BTD + self.message_attention(self.message_norm(message_BTD))
        frames = torch.cat([tokens_BTND, message_BTD.unsqueeze(2)], dim=2).flatten(0, 1)
        frames = (frames + self.attention(self.norm1(frames)))[:, :num_tokens]
        frames = frames + self.feed_forward(self.norm2(frames))
        return frames.unflatten(0, (batch, -1))


class CrossFrameCommunicationTransformer(nn.Module):
    """Adds a class token and positions to the tokens of each frame and lets the frames communicate.

    Source: X-CLIP (Ni et al., arXiv:2208.02816); VideoAdviser, arXiv:2309.15494, section 4.1. Equal to
    `XCLIPVisionEncoder` of transformers with the embeddings and the first LayerNorm of its vision model, with the
    frozen features in place of patch embeddings and without stochastic depth.

    Args:
        width: D.
        heads: attention heads.
        layers: number of layers, at least 1.
        num_tokens: N, visual tokens per frame.
        dropout: dropout of attention weights and hidden values.
    Raises:
        ValueError: there are no layers, or the width is not divisible by the heads.
    """

    def __init__(self, *, width: int, heads: int, layers: int, num_tokens: int, dropout: float = 0.0) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"A cross-frame communication transformer needs at least 1 layer, not {layers}.")
        self.class_token = learnable(width, std=width**-0.5)  # as in CLIP
        self.positions = learnable(1 + num_tokens, width, std=POSITION_STD)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            CrossFrameCommunicationLayer(width=width, heads=heads, layers=layers, dropout=dropout)
            for _ in range(layers)
        )

    def forward(self, visual_BTND: Tensor) -> Tensor:
        """Return the tokens of each frame, class token first, [B, T, 1+N, D].

        Args:
            visual_BTND: visual tokens of each frame, [B, T, N, D].
        Raises:
            ValueError: the number of tokens per frame differs from `num_tokens`.
        """
        batch, frames, num_tokens, width = visual_BTND.shape
        if 1 + num_tokens != len(self.positions):
            raise ValueError(f"Got {num_tokens} visual tokens per frame, expected {len(self.positions) - 1}.")
        class_BT1D = self.class_token.expand(batch, frames, 1, width)
        tokens = torch.cat([class_BT1D, visual_BTND.to(self.class_token.dtype)], dim=2) + self.positions
        tokens = self.norm(tokens)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens

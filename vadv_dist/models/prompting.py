"""Video-specific prompting: adapt the embedding of each class's words to the video.

Shape letters: B batch, T frames, N visual tokens per frame, C classes, D width.
"""

import torch
from torch import Tensor, nn

from vadv_dist.models.attention import CrossAttention, FeedForward, linear


class PromptingLayer(nn.Module):
    """One layer: prompts attend to visual tokens, then a feed-forward, each added to its input.

    Args:
        width: D.
        heads: attention heads.
        layers: number of layers of the whole module, for the initialisation.
        dropout: dropout of attention weights and hidden values.
    """

    def __init__(self, *, width: int, heads: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CrossAttention(width=width, heads=heads, layers=layers, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width=width, layers=layers, dropout=dropout)

    def forward(self, prompts_BCD: Tensor, visual_BND: Tensor) -> Tensor:
        """Return the adapted prompts, [B, C, D]."""
        prompts_BCD = prompts_BCD + self.attention(self.norm1(prompts_BCD), visual_BND)
        return prompts_BCD + self.feed_forward(self.norm2(prompts_BCD))


class VideoSpecificPrompting(nn.Module):
    """v̄_p = v_p + α · decoder(v_p, visual tokens averaged over frames), with a learnable α per dimension.

    Source: VideoAdviser, arXiv:2309.15494, eq. 7, in the form of X-CLIP (Ni et al., arXiv:2208.02816). Equal to
    `XCLIPPromptGenerator` of transformers together with the LayerNorm, the projection and the mean over frames that
    `XCLIPModel` applies before it and the sum after it. As there, the class token is excluded from keys and values;
    with one visual token per frame the average leaves one key, and the attention weights are all 1.

    Args:
        width: D.
        heads: attention heads.
        layers: number of layers, at least 1 (X-CLIP: 2).
        alpha: initial α (X-CLIP: 0.1), small so that training starts from the class's words.
        dropout: dropout of attention weights and hidden values.
    Raises:
        ValueError: there are no layers, or the width is not divisible by the heads.
    """

    def __init__(self, *, width: int, heads: int, layers: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"Video-specific prompting needs at least 1 layer, not {layers}.")
        self.visual_norm = nn.LayerNorm(width)
        self.visual_projection = linear(width, width, bias=False)
        self.memory_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            PromptingLayer(width=width, heads=heads, layers=layers, dropout=dropout) for _ in range(layers)
        )
        self.alpha = nn.Parameter(torch.full((width,), alpha))

    def forward(self, prompts_CD: Tensor, tokens_BTND: Tensor) -> Tensor:
        """Return the prompts of each video, [B, C, D].

        Args:
            prompts_CD: embedding of each class's words, [C, D].
            tokens_BTND: tokens of each frame, class token first, [B, T, 1+N, D].
        """
        visual_BTND = self.visual_projection(self.visual_norm(tokens_BTND[:, :, 1:]))
        memory_BND = self.memory_norm(visual_BTND.mean(dim=1))
        prompts_BCD = prompts_CD.to(self.alpha.dtype).expand(len(memory_BND), -1, -1)
        adapted = prompts_BCD
        for layer in self.layers:
            adapted = layer(adapted, memory_BND)
        return prompts_BCD + self.alpha * adapted

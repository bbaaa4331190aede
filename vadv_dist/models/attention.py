"""Attention and feed-forward blocks of the video modules: pre-norm, with QuickGELU, as in CLIP.

Shape letters: B batch, L tokens, Q queries, K keys, D width.

Initialisation: a weight has standard deviation fan_in^-0.5, which preserves unit variance through a layer of any width
(a fixed 0.02 would almost silence the residual branches of a narrow teacher). Layers that write into a residual stream
are divided by sqrt(2 · layers), so that the stream's variance does not grow with depth (CLIP, arXiv:2103.00020). Biases
are 0.
"""

import torch
from torch import Tensor, nn

POSITION_STD = 0.02  # small compared with features of about unit variance
_QUICK_GELU = 1.702


def init_linear(linear: nn.Linear, std: float) -> nn.Linear:
    """Initialise a linear layer with normal weights of the given standard deviation and zero biases, and return it."""
    nn.init.normal_(linear.weight, std=std)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def linear(in_features: int, out_features: int, *, bias: bool = True, residual_layers: int = 0) -> nn.Linear:
    """Create a linear layer with this file's initialisation.

    Args:
        in_features, out_features: widths.
        bias: whether it has one.
        residual_layers: number of layers of the residual stream that it writes into; 0 if it writes into none.
    """
    std = in_features**-0.5
    if residual_layers:
        std *= (2 * residual_layers) ** -0.5
    return init_linear(nn.Linear(in_features, out_features, bias=bias), std)


def learnable(*shape: int, std: float) -> nn.Parameter:
    """Create a parameter with normal values."""
    return nn.Parameter(torch.randn(*shape) * std)


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Args:
        width: D.
        heads: attention heads.
        layers: number of layers of the residual stream that it writes into.
        dropout: dropout of the attention weights.
    Raises:
        ValueError: the width is not divisible by the heads.
    """

    def __init__(self, *, width: int, heads: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        _require_divisible(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.query_key_value = linear(width, 3 * width)
        self.out = linear(width, width, residual_layers=layers)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return the attention output of each token, [B, L, D]."""
        joint = self.query_key_value(tokens_BLD).unflatten(-1, (3, self.heads, -1))
        query, key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        gathered = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out(gathered.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head cross-attention, without biases on queries, keys and values (X-CLIP).

    Args and raises as in `SelfAttention`.
    """

    def __init__(self, *, width: int, heads: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        _require_divisible(width, heads)
        self.heads = heads
        self.dropout = dropout
        self.query = linear(width, width, bias=False)
        self.key_value = linear(width, 2 * width, bias=False)
        self.out = linear(width, width, residual_layers=layers)

    def forward(self, queries_BQD: Tensor, memory_BKD: Tensor) -> Tensor:
        """Return the attention output of each query, [B, Q, D]."""
        query = self.query(queries_BQD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        joint = self.key_value(memory_BKD).unflatten(-1, (2, self.heads, -1))
        key, value = joint.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        gathered = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out(gathered.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """D → 4D → D with QuickGELU, x · sigmoid(1.702 x).

    Args:
        width: D.
        layers: number of layers of the residual stream that it writes into.
        dropout: dropout of the hidden values.
    """

    def __init__(self, *, width: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = linear(width, 4 * width)
        self.drop = nn.Dropout(dropout)
        self.contract = linear(4 * width, width, residual_layers=layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each token independently, [..., D]."""
        hidden = self.expand(tokens)
        return self.contract(self.drop(hidden * torch.sigmoid(_QUICK_GELU * hidden)))


class TransformerLayer(nn.Module):
    """One pre-norm layer: attention, then feed-forward, each added to its input.

    Args and raises as in `SelfAttention`.
    """

    def __init__(self, *, width: int, heads: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width=width, heads=heads, layers=layers, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width=width, layers=layers, dropout=dropout)

    def forward(self, tokens_BLD: Tensor) -> Tensor:
        """Return the transformed sequence, [B, L, D]."""
        tokens_BLD = tokens_BLD + self.attention(self.norm1(tokens_BLD))
        return tokens_BLD + self.feed_forward(self.norm2(tokens_BLD))


def _require_divisible(width: int, heads: int) -> None:
    if heads < 1 or width % heads:
        raise ValueError(f"A width of {width} is not divisible by {heads} heads.")

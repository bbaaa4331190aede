"""Two-layer heads: from a representation to another one or to a logit."""

from typing import Literal, get_args

from torch import Tensor, nn

from vadv_dist.models.attention import init_linear, linear

Activation = Literal["tanh", "gelu", "relu"]
_ACTIVATIONS = {"tanh": nn.functional.tanh, "gelu": nn.functional.gelu, "relu": nn.functional.relu}
# Of a last layer: a logit of 128 hidden values of unit size then starts within about 0.02 · sqrt(128) = 0.23 of 0, the
# middle of the label range, and yet passes a gradient on from the first step, which zeros would not.
OUTPUT_STD = 0.02


class TwoLayerMLP(nn.Module):
    """A linear layer, an activation, a linear layer; the hidden width is H of Table 3.

    Args:
        in_features: width of the input.
        hidden: H.
        out_features: width of the output.
        activation: `tanh`, `gelu` or `relu`.
        dropout: dropout of the hidden values.
    Raises:
        ValueError: the activation is another one.
    """

    def __init__(
        self, in_features: int, hidden: int, out_features: int, activation: Activation, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(get_args(Activation))}.")
        self.activation = activation
        self.dense = linear(in_features, hidden)
        self.drop = nn.Dropout(dropout)
        self.out = init_linear(nn.Linear(hidden, out_features), OUTPUT_STD)

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features], in the type of the weights."""
        dtype = self.dense.weight.dtype
        hidden = _ACTIVATIONS[self.activation](self.dense(features.to(dtype)))
        return self.out(self.drop(hidden)).to(dtype)

"""Two-layer heads from a representation to another one or to a logit, always in fp32.

bfloat16 has 8 significant bits: between 2 and 4 its values are 1/64 apart, so a bf16 logit takes only a few values,
however precise the representation below it. Heads are small, so fp32 has no measurable cost.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vadv_dist.models.attention import init_linear

Activation = Literal["tanh", "gelu", "relu"]
_ACTIVATIONS = {"tanh": nn.functional.tanh, "gelu": nn.functional.gelu, "relu": nn.functional.relu}
# For a last layer: a logit of 128 hidden values of unit size starts within about 0.02 · sqrt(128) = 0.23 of its bias,
# and still passes a gradient from the first step, unlike with zeros.
OUTPUT_STD = 0.02


def without_autocast(device: torch.device) -> torch.autocast:
    """Disable autocast for operations on a device; the meta device has none and uses the CPU's."""
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    return torch.autocast(kind, enabled=False)


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """Return float32 for shorter types, and float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


class Fp32Linear(nn.Linear):
    """A linear layer that computes in fp32 (fp64 if its weights are), also for bf16 input and under autocast."""

    computes_in_fp32 = True

    def forward(self, input: Tensor) -> Tensor:  # torch's argument name
        """Map [..., in_features] to fp32 [..., out_features]."""
        dtype = at_least_fp32(self.weight.dtype)
        with without_autocast(input.device):
            return nn.functional.linear(input.to(dtype), self.weight.to(dtype), self.bias.to(dtype))


def start_in_label_units(layer: nn.Linear, *, mean: float, unit: float) -> None:
    """Initialise a last layer so that its output starts near the mean label, with weights in units of the label scale.

    Args:
        layer: the last layer of a head with bias 0.
        mean: mean of the training labels.
        unit: a sixth of the label range: 1 for [-3, 3], which `OUTPUT_STD` is chosen for.
    """
    with torch.no_grad():
        layer.weight.mul_(unit)
        layer.bias.fill_(mean)


def head_layer(in_features: int, out_features: int, std: float | None = None) -> Fp32Linear:
    """Create a layer of a head: biases 0, weights normal with `std`, by default in_features^-0.5."""
    layer = Fp32Linear(in_features, out_features)
    init_linear(layer, in_features**-0.5 if std is None else std)
    return layer


class TwoLayerMLP(nn.Module):
    """A linear layer, an activation, a linear layer; the hidden width is H of Table 3.

    Args:
        in_features: width of the input.
        hidden: H.
        out_features: width of the output.
        activation: `tanh`, `gelu` or `relu`.
        dropout: dropout of the hidden values.
    Raises:
        ValueError: unknown activation.
    """

    def __init__(
        self, in_features: int, hidden: int, out_features: int, activation: Activation, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}, expected one of {', '.join(get_args(Activation))}.")
        self.activation = activation
        self.dense = head_layer(in_features, hidden)
        self.drop = nn.Dropout(dropout)
        self.out = head_layer(hidden, out_features, OUTPUT_STD)

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., in_features] to fp32 [..., out_features]."""
        hidden = _ACTIVATIONS[self.activation](self.dense(features))
        mapped: Tensor = self.out(self.drop(hidden))
        return mapped

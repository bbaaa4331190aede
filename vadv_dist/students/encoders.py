"""Multi-layer perceptrons from a modality's vector to an embedding."""

import itertools
from typing import Literal

from torch import nn

from vadv_dist.models.heads import head_layer

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def mlp(
    *widths: int, activation: Literal["relu", "tanh", "sigmoid"] = "relu", dropout: float = 0.0, last: bool = False
) -> nn.Sequential:
    """Create a perceptron in fp32, as heads are.

    Args:
        widths: of the input, the hidden layers and the output.
        activation: after every hidden layer.
        dropout: after every activation.
        last: put an activation after the output too.
    """
    layers: list[nn.Module] = []
    for place, (inward, outward) in enumerate(itertools.pairwise(widths)):
        layers.append(head_layer(inward, outward))
        if last or place < len(widths) - 2:
            layers += [_ACTIVATIONS[activation](), nn.Dropout(dropout)]
    return nn.Sequential(*layers)

"""Perceptrons with saturating activations."""

import itertools

from torch import nn

from vadv_dist.models.heads import head_layer


def saturating(*widths: int, activation: type[nn.Module], dropout: float) -> list[nn.Module]:
    """Create layers in fp32, each followed by an activation and dropout.

    Args:
        widths: of the input and of every layer.
        activation: its class.
        dropout: dropout after every activation.
    """
    # A sigmoid's slope is 1/4, so that three layers would leave a hundredth of the variation (Glorot and Bengio 2010).
    gain = 4.0 if activation is nn.Sigmoid else 1.0
    layers: list[nn.Module] = []
    for inward, outward in itertools.pairwise(widths):
        layers += [head_layer(inward, outward, gain * inward**-0.5), activation(), nn.Dropout(dropout)]
    return layers

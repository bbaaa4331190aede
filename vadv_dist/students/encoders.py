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
    layers: list[nn.Module] = []
    for inward, outward in itertools.pairwise(widths):
        layers += [head_layer(inward, outward), activation(), nn.Dropout(dropout)]
    return layers

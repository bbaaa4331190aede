"""Networks that are trained against the rest of the model, within the same step."""

from typing import Any

import torch
from torch import Tensor, nn

from vadv_dist.models.heads import Fp32Linear


class Adversary(nn.Module):
    """Asks questions about an embedding: maps it to unit vectors, and learns those that raise the loss.

    Its own gradient is reversed on the way in and out, so one backward pass moves it up the loss and everything else
    down, the embedding included (Ganin & Lempitsky, arXiv:1409.7495).

    Args:
        width: width of an embedding, of the hidden layer and of an answer.
        lr: its own peak learning rate, in a parameter group of its own.
    """

    def __init__(self, *, width: int, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.layers = nn.Sequential(Fp32Linear(width, width), nn.GELU(), Fp32Linear(width, width))

    def forward(self, embedding_BE: Tensor) -> Tensor:
        """Return the answers, [B, E], each of unit length."""
        answer_BE: Tensor = self.layers(reverse_gradient(embedding_BE))
        return reverse_gradient(nn.functional.normalize(answer_BE, dim=-1))


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def reverse_gradient(values: Tensor) -> Tensor:
    """The same values, whose gradient has the opposite sign."""
    reversed_values: Tensor = _Reversed.apply(values)  # type: ignore[no-untyped-call]  # untyped in torch
    return reversed_values

"""The interface between the training loop and engines, and code that engines share.

An engine's state is fp32 tensors by parameter name, whatever it keeps in memory, so that checkpoints are alike. Each
rank gives the parts that it holds, and reads the parts that it needs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from vadv_dist.config.sections import OptimizerConfig
from vadv_dist.data.schema import Batch
from vadv_dist.formats.tensor_parts import TensorPart, TensorReader
from vadv_dist.tasks.base import Outputs, ParameterGroup, Terms

MOMENTS = ("exp_avg", "exp_avg_sq")
Weigh = Callable[[Terms], Mapping[str, float | Tensor]]


class Engine(Protocol):
    """Runs one task's `TrainingStep` on one rank, in step with the other ranks."""

    def accumulate(self, batch: Batch, weigh: Weigh, *, last: bool) -> Terms:
        """Add the gradient of one micro-batch's weighted loss.

        Args:
            batch: the micro-batch, on this rank's device.
            weigh: gives the weight of each term.
            last: whether this is the last micro-batch before the update.
        Returns:
            this rank's share of the unweighted terms, and of their weighted sum as `total`, without gradient, [] each.
        """
        ...

    def update(self, lr_factor: float) -> Tensor:
        """Clip, update the weights at `lr_factor` times the peak rates, and return the gradient's norm before, []."""
        ...

    def terms(self, batch: Batch) -> Terms:
        """Terms of a micro-batch, equal to those in `accumulate`, without gradient."""
        ...

    def predict(self, batch: Batch) -> Outputs:
        """Outputs in evaluation mode, without gradient."""
        ...

    def weights(self) -> Iterator[TensorPart]:
        """This rank's parts of the weights and buffers, where they are; those of all ranks are the whole.

        They are views: the next update changes them.
        """
        ...

    def moments(self) -> Iterator[TensorPart]:
        """This rank's parts of AdamW's moments, named `<moment>/<parameter>`; like `weights`."""
        ...

    def load(self, weights: TensorReader, moments: TensorReader, num_updates: int) -> None:
        """Restore a state that any engine on any number of ranks has given."""
        ...


def adamw(groups: Sequence[ParameterGroup], optimizer: OptimizerConfig) -> torch.optim.AdamW:
    """Build AdamW over parameter groups; the fused kernel is several times faster, on a CPU too."""
    return torch.optim.AdamW(
        [{"params": g.parameters, "lr": g.lr, "weight_decay": g.weight_decay, "name": g.name} for g in groups],
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.eps,
        fused=True,
    )

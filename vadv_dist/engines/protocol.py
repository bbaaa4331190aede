"""The interface between the training loop and engines.

An engine's state is fp32 tensors by parameter name, whatever it keeps in memory, so that checkpoints are alike. Each
rank gives the parts that it holds, and reads the parts that it needs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from vadv_dist.data.schema import Batch
from vadv_dist.formats.tensor_parts import TensorPart, TensorReader
from vadv_dist.tasks.base import Outputs, Terms

Weigh = Callable[[Terms], Mapping[str, float | Tensor]]
# By micro-batch, this rank's share of the unweighted terms, and of their weighted sum as `total`, without gradient, []
# each; and the norm of the gradient before clipping, [].
StepResult = tuple[list[Terms], Tensor]


class Engine(Protocol):
    """Runs one task's `TrainingStep` on one rank, in step with the other ranks."""

    def step(self, batches: Sequence[Batch], weigh: Weigh, lr_factor: float, *, weights_known: bool) -> StepResult:
        """Run one training step: gradients of the weighted loss, clipping, update of the weights.

        Args:
            batches: this rank's micro-batches, on the CPU.
            weigh: gives the weight of each term of a micro-batch.
            lr_factor: the learning rates as a fraction of the peak rates.
            weights_known: whether `weigh` returns the same tensors for any terms, so that a step may be recorded.
        """
        ...

    def take_notes(self) -> list[str]:
        """Return sentences, since the last call, about steps that run in another way than configured."""
        ...

    def take_compute_s(self) -> float | None:
        """Seconds, since the last call, of this rank's forward and backward passes before they wait for other ranks.

        None for one rank, and if ranks wait for one another everywhere.
        """
        ...

    def terms(self, batch: Batch) -> Terms:
        """Terms of a micro-batch, equal to those in `step`, without gradient."""
        ...

    def predict(self, batch: Batch) -> Outputs:
        """Outputs in evaluation mode, without gradient, of a batch on the device; the next call may overwrite them."""
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

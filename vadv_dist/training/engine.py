"""What runs forward, backward and update: the interface, and the engine of plain torch.

An engine's state is full fp32 tensors by parameter name, whatever it keeps in memory, so that checkpoints are alike.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from vadv_dist.config.sections import OptimizerConfig
from vadv_dist.tasks.base import ParameterGroup
from vadv_dist.training.distributed import Distributed

Inputs = Mapping[str, Tensor | None]
Outputs = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine(Protocol):
    """Runs one model on one rank, in step with the other ranks."""

    def accumulate(self, inputs: Inputs, loss_of: Callable[[Outputs], Tensor], *, last: bool) -> None:
        """Add the gradient of one micro-batch.

        Args:
            inputs: keyword arguments of the model.
            loss_of: this rank's share of the global loss; the ranks' shares add up.
            last: whether the update follows.
        """
        ...

    def update(self, lr_factor: float) -> Tensor:
        """Clip, update the weights at `lr_factor` times the peak rates, and return the gradient's norm before, []."""
        ...

    def look(self, inputs: Inputs) -> Outputs:
        """Run the model as `accumulate` does, without gradient."""
        ...

    def predict(self, inputs: Inputs) -> Outputs:
        """Run the model in evaluation mode without gradient."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Full fp32 weights and buffers on the CPU; every rank must call it, rank 0 alone gets them."""
        ...

    def moments(self) -> dict[str, Tensor]:
        """AdamW's full moments on the CPU, keyed `<moment>/<parameter>`; like `weights`."""
        ...

    def load(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], num_updates: int) -> None:
        """Take over the state of a checkpoint."""
        ...


def adamw(groups: Sequence[ParameterGroup], optimizer: OptimizerConfig) -> torch.optim.AdamW:
    """Build AdamW over parameter groups; the fused kernel is several times faster, on a CPU too."""
    return torch.optim.AdamW(
        [{"params": g.parameters, "lr": g.lr, "weight_decay": g.weight_decay, "name": g.name} for g in groups],
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.eps,
        fused=True,
    )


class TorchEngine:
    """Plain torch: fused AdamW, autocast for bf16, DistributedDataParallel where there are several ranks.

    Args:
        model: weights in fp32; all ranks hold the same.
        groups: its trained parameters.
        optimizer: AdamW's constants and the clipping norm.
        distributed: this rank.
        dtype: type in which the model computes.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerConfig,
        distributed: Distributed,
        dtype: torch.dtype,
    ) -> None:
        self._model = model.to(distributed.device)
        self._distributed = distributed
        self._dtype = dtype
        self._clip_norm = optimizer.clip_norm
        self._groups = groups
        self._parameters = [p for group in groups for p in group.parameters]
        self._optimizer = adamw(groups, optimizer)
        self._module: nn.Module = self._model
        if distributed.world_size > 1:
            ids = [distributed.device] if distributed.device.type == "cuda" else None
            self._module = nn.parallel.DistributedDataParallel(self._model, device_ids=ids)

    def accumulate(self, inputs: Inputs, loss_of: Callable[[Outputs], Tensor], *, last: bool) -> None:
        """See `Engine.accumulate`."""
        self._module.train()
        synchronises = last or not isinstance(self._module, nn.parallel.DistributedDataParallel)
        with nullcontext() if synchronises else self._module.no_sync():  # type: ignore[operator]  # DDP's own
            with self._autocast():
                outputs = self._module(**inputs)
            # DDP averages gradients over ranks, while the ranks' losses add up.
            torch.autograd.backward(loss_of(outputs) * self._distributed.world_size)

    def update(self, lr_factor: float) -> Tensor:
        """See `Engine.update`."""
        for group, own in zip(self._groups, self._optimizer.param_groups, strict=True):
            own["lr"] = group.lr * lr_factor
        bound = float("inf") if self._clip_norm is None else self._clip_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, bound)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm.detach()

    def look(self, inputs: Inputs) -> Outputs:
        """See `Engine.look`."""
        self._model.train()
        with torch.no_grad(), self._autocast():
            outputs: Outputs = self._model(**inputs)
        return outputs

    def predict(self, inputs: Inputs) -> Outputs:
        """See `Engine.predict`."""
        self._model.eval()
        with torch.no_grad(), self._autocast():
            outputs: Outputs = self._model(**inputs)
        return outputs

    def weights(self) -> dict[str, Tensor]:
        """See `Engine.weights`."""
        if not self._distributed.is_main:
            return {}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._model.state_dict().items()}

    def moments(self) -> dict[str, Tensor]:
        """See `Engine.moments`."""
        if not self._distributed.is_main:
            return {}
        return {
            f"{moment}/{name}": self._optimizer.state[parameter][moment].cpu().contiguous()
            for group in self._groups
            for name, parameter in zip(group.names, group.parameters, strict=True)
            for moment in MOMENTS
        }

    def load(self, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], num_updates: int) -> None:
        """See `Engine.load`."""
        self._model.load_state_dict(dict(weights))
        for group in self._groups:
            for name, parameter in zip(group.names, group.parameters, strict=True):
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(num_updates), device=parameter.device),
                    **{m: moments[f"{m}/{name}"].to(parameter.device, copy=True) for m in MOMENTS},
                }

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._distributed.device.type, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16
        )

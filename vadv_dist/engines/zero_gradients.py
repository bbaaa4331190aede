"""Gradients for DeepSpeed's ZeRO stages, handed over in few operations, whatever the number of parameters.

DeepSpeed's own way is a hook per parameter that copies the gradient into a bucket and from there into a partition, and
then a norm in fp64 and a test for infinity per parameter. DeepSpeed also takes gradients that are flat already: entries
of `averaged_gradients` with an attribute `flat_partition`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vadv_dist.engines.distributed import Distributed

# Elements of a flat tensor whose squares are summed at once: long sums lose digits in fp32.
_CHUNK = 1 << 20


class ZeroGradients(Protocol):
    """How the gradients of a step reach DeepSpeed's optimizer."""

    def hand_over(self) -> None:
        """Give DeepSpeed this rank's part of the gradients, after the last backward pass of a step."""
        ...


class CollectedGradients:
    """Gradients that autograd accumulates as in plain torch, and that one pass per step collects and reduces.

    For ZeRO 1, whose gradients are whole, and for ZeRO 2 on one rank, where nothing is partitioned.

    Args:
        optimizer: DeepSpeed's optimizer of stage 1 or 2; its hooks are removed.
        distributed: this rank.
    """

    def __init__(self, optimizer: Any, distributed: Distributed) -> None:
        for hook in optimizer._grad_acc_hooks:
            hook.remove()
        self._optimizer = optimizer
        self._size = distributed.world_size
        self._groups: list[list[nn.Parameter]] = optimizer.bit16_groups
        self._flat: list[Tensor] = []
        self._views: list[list[Tensor]] = []
        self._parts: list[_FlatPartition] = []
        for group, weights in zip(self._groups, optimizer.bit16_groups_flat, strict=True):
            flat = torch.zeros_like(weights)  # laid out as the weights, of which each rank updates an equal part
            begins = [p.data.storage_offset() - weights.storage_offset() for p in group]
            share = flat.numel() // self._size
            self._flat.append(flat)
            self._views.append([flat[at : at + p.numel()].view_as(p) for at, p in zip(begins, group, strict=True)])
            self._parts.append(_FlatPartition(flat[share * distributed.rank :][:share]))

    def hand_over(self) -> None:
        """See `ZeroGradients.hand_over`; gradients are summed over ranks."""
        for number, group in enumerate(self._groups):
            used = [(p, view) for p, view in zip(group, self._views[number], strict=True) if p.grad is not None]
            if len(used) < len(group):
                self._flat[number].zero_()
            torch._foreach_copy_([view for _, view in used], [p.grad for p, _ in used if p.grad is not None])
            for parameter, _ in used:
                parameter.grad = None
            part = self._parts[number]
            if self._size > 1:
                dist.reduce_scatter_tensor(part.flat_partition, self._flat[number])
            self._optimizer.averaged_gradients[number] = part


class FlattenedGradients:
    """Gradients that DeepSpeed's hooks have reduced, copied into flat tensors that are kept between steps.

    DeepSpeed would concatenate them into a new tensor; on a CPU, `torch.cat` runs in one thread.

    Args:
        optimizer: DeepSpeed's optimizer of stage 2.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._parts: dict[int, _FlatPartition] = {}

    def hand_over(self) -> None:
        """See `ZeroGradients.hand_over`."""
        for number, gradients in self._optimizer.averaged_gradients.items():
            sizes = [gradient.numel() for gradient in gradients]
            if number not in self._parts:
                self._parts[number] = _FlatPartition(gradients[0].new_empty(sum(sizes)))
            part = self._parts[number]
            views = torch.split(part.flat_partition, sizes)
            torch._foreach_copy_([v.view_as(g) for v, g in zip(views, gradients, strict=True)], gradients)
            self._optimizer.averaged_gradients[number] = part


class Clipping:
    """Norm of the gradients and clipping as in plain torch, without waiting for the device.

    It replaces the methods of DeepSpeed's optimizer of stages 1 to 3 that compute the norm per parameter. Those of
    stages 1 and 2 that clip wait for the norm at every group.

    Args:
        optimizer: DeepSpeed's optimizer, without offload.
        stage: its stage.
        bound: the maximum norm; None does not clip.
        distributed: this rank.
    """

    def __init__(self, optimizer: Any, stage: int, bound: float | None, distributed: Distributed) -> None:
        self._optimizer = optimizer
        self._bound = bound
        self._distributed = distributed
        self._factor: Tensor | None = None
        self.norm = torch.zeros((), device=distributed.device)
        if stage == 3:
            optimizer._get_norm_groups = lambda: [self._measure()]
        else:
            optimizer.scaled_global_norm = self._measure
            optimizer.unscale_and_clip_grads = self._clip

    def _measure(self) -> Tensor:
        """Norm over all ranks, [], fp32; kept as `norm`."""
        parts = [part for gradients in self._optimizer.averaged_gradients.values() for part in gradients]
        norms = torch._foreach_norm(parts, 2, dtype=torch.float32)
        self.norm = self._distributed.sum(torch.stack(norms).square().sum()).sqrt()
        if self._bound is not None:
            self._factor = (self._bound / (self.norm + 1e-6)).clamp(max=1.0)
        return self.norm

    def _clip(self, gradients: Sequence[Tensor], norm: Tensor) -> None:
        if self._factor is not None:
            torch._foreach_mul_(list(gradients), self._factor)


class _FlatPartition(list[Tensor]):
    """A rank's gradients of one group: DeepSpeed reads `flat_partition`, the list holds views of it in chunks."""

    def __init__(self, flat_partition: Tensor) -> None:
        super().__init__(torch.split(flat_partition, _CHUNK))
        self.flat_partition = flat_partition

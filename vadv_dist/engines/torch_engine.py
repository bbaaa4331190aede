"""The PyTorch engine."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from vadv_dist.config.sections import OptimizerConfig
from vadv_dist.data.schema import Batch
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.protocol import MOMENTS, Weigh, adamw
from vadv_dist.formats.tensor_parts import TensorPart, TensorReader
from vadv_dist.objectives.base import weighted_total
from vadv_dist.tasks.base import Outputs, ParameterGroup, Terms, TrainingStep


class TorchEngine:
    """PyTorch: fused AdamW, autocast for bf16, DistributedDataParallel for several ranks.

    Args:
        step: model and objective, weights in fp32; all ranks hold the same.
        groups: its trained parameters.
        optimizer: AdamW's constants and the clipping norm.
        distributed: this rank.
        dtype: type in which the model computes.
    """

    def __init__(
        self,
        step: TrainingStep,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerConfig,
        distributed: Distributed,
        dtype: torch.dtype,
    ) -> None:
        self._step = step.to(distributed.device)
        self._distributed = distributed
        self._dtype = dtype
        self._clip_norm = optimizer.clip_norm
        self._groups = groups
        self._parameters = [p for group in groups for p in group.parameters]
        self._optimizer = adamw(groups, optimizer)
        self._module: nn.Module = self._step
        if distributed.world_size > 1:
            ids = [distributed.device] if distributed.device.type == "cuda" else None
            ddp = nn.parallel.DistributedDataParallel
            # Each forward would overwrite them with those of rank 0.
            ignored = self._step.rank_buffer_names()
            ddp._set_params_and_buffers_to_ignore_for_model(self._step, ignored)  # type: ignore[no-untyped-call]  # untyped in torch
            self._module = ddp(self._step, device_ids=ids)

    def accumulate(self, batch: Batch, weigh: Weigh, *, last: bool) -> Terms:
        """See `Engine.accumulate`."""
        self._module.train()
        synchronises = last or not isinstance(self._module, nn.parallel.DistributedDataParallel)
        with nullcontext() if synchronises else self._module.no_sync():  # type: ignore[operator]  # DDP's own
            with self._autocast():
                terms: Terms = self._module(batch)[1]
            total = weighted_total(terms, weigh(terms))
            # DDP averages gradients over ranks, while the ranks' losses add up.
            torch.autograd.backward(total * self._distributed.world_size)
        return {name: term.detach() for name, term in (terms | {"total": total}).items()}

    def update(self, lr_factor: float) -> Tensor:
        """See `Engine.update`."""
        for group, own in zip(self._groups, self._optimizer.param_groups, strict=True):
            own["lr"] = group.lr * lr_factor
        bound = float("inf") if self._clip_norm is None else self._clip_norm
        norm = nn.utils.clip_grad_norm_(self._parameters, bound)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm.detach()

    def terms(self, batch: Batch) -> Terms:
        """See `Engine.terms`."""
        self._step.train()
        with torch.no_grad(), self._autocast():
            terms: Terms = self._step(batch)[1]
        return terms

    def predict(self, batch: Batch) -> Outputs:
        """See `Engine.predict`."""
        self._step.eval()
        with torch.no_grad(), self._autocast():
            outputs: Outputs = self._step(batch, with_terms=False)[0]
        return outputs

    def weights(self) -> Iterator[TensorPart]:
        """See `Engine.weights`; rank 0 gives all."""
        if self._distributed.is_main:
            for name, tensor in self._step.state_dict().items():
                yield TensorPart.whole(name, tensor.contiguous())

    def moments(self) -> Iterator[TensorPart]:
        """See `Engine.moments`; rank 0 gives all."""
        if self._distributed.is_main:
            for name, parameter in self._trained():
                for moment in MOMENTS:
                    yield TensorPart.whole(f"{moment}/{name}", self._optimizer.state[parameter][moment].contiguous())

    def load(self, weights: TensorReader, moments: TensorReader, num_updates: int) -> None:
        """See `Engine.load`."""
        with torch.no_grad():
            for name, tensor in self._step.state_dict().items():
                tensor.copy_(weights.read(name).view(tensor.shape))
        for name, parameter in self._trained():
            state = {m: torch.empty_like(parameter) for m in MOMENTS}
            for moment, tensor in state.items():
                tensor.copy_(moments.read(f"{moment}/{name}").view(tensor.shape))
            step = torch.tensor(float(num_updates), device=parameter.device)
            self._optimizer.state[parameter] = {"step": step, **state}

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self._groups:
            yield from zip(group.names, group.parameters, strict=True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._distributed.device.type, dtype=torch.bfloat16, enabled=self._dtype == torch.bfloat16
        )

"""The PyTorch engine."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from vadv_dist.config.sections import OptimizerConfig
from vadv_dist.data.schema import Batch
from vadv_dist.engines.adamw import ClippedAdamW
from vadv_dist.engines.compute_clock import ComputeClock
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.graphs import Graphs, Record
from vadv_dist.engines.protocol import StepResult, Weigh
from vadv_dist.formats.tensor_parts import TensorPart, TensorReader
from vadv_dist.objectives.base import weighted_total
from vadv_dist.tasks.base import Outputs, ParameterGroup, Terms, TrainingStep


class TorchEngine:
    """PyTorch: fused AdamW, bf16 weights beside fp32 masters, DistributedDataParallel for several ranks.

    Args:
        step: model and objective, weights in fp32; all ranks hold the same.
        groups: its trained parameters.
        optimizer: AdamW's constants and the clipping norm.
        distributed: this rank.
        dtype: type in which the model computes; parts that compute in fp32 anyway keep fp32 weights.
        compiled: whether the optimizer may compile its kernel.
        record: records steps and predictions to replay them (`Graphs`); None runs them as they are.
        notes: what `take_notes` returns first.
    """

    def __init__(
        self,
        step: TrainingStep,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerConfig,
        distributed: Distributed,
        dtype: torch.dtype,
        *,
        compiled: bool = False,
        record: Record | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._step = step.to(distributed.device)
        self._distributed, self._notes = distributed, list(notes)
        rounded = rounded_parameters(step) if dtype == torch.bfloat16 else {}
        self._optimizer = ClippedAdamW(groups, optimizer, rounded=rounded, compiled=compiled)
        # Frozen parameters are saved as they were given.
        self._frozen = {n: p.detach().cpu() for n, p in rounded.items() if not p.requires_grad}
        for name in self._frozen:
            rounded[name].data = rounded[name].to(torch.bfloat16)
        self._graphs: Graphs | None = None
        if record is not None:
            self._graphs = Graphs(distributed.device, record, self._optimizer.discard_gradients)
        self._weigh: Weigh = lambda terms: {}
        self._module: nn.Module = self._step
        self._clock: ComputeClock | None = None
        if distributed.world_size > 1:
            ids = [distributed.device] if distributed.device.type == "cuda" else None
            ddp = nn.parallel.DistributedDataParallel
            # Each forward would overwrite them with those of rank 0.
            ignored = self._step.rank_buffer_names()
            ddp._set_params_and_buffers_to_ignore_for_model(self._step, ignored)  # type: ignore[no-untyped-call]  # untyped in torch
            self._module = ddp(self._step, device_ids=ids)
            self._clock = ComputeClock(self._step, distributed.device, backward=True)

    def step(self, batches: Sequence[Batch], weigh: Weigh, lr_factor: float, *, weights_known: bool) -> StepResult:
        """See `Engine.step`."""
        self._module.train()
        self._optimizer.set_lr(lr_factor)
        self._weigh = weigh
        if self._graphs is None or not weights_known:
            return self._run([batch.to(self._distributed.device) for batch in batches])
        terms, norm = self._graphs.run(self._run, batches, what="A training step")
        # Copies, because the next replay overwrites the results.
        copies = [dict(zip(own, torch.stack([*own.values()]).unbind(), strict=True)) for own in terms]
        return copies, norm.clone()

    def take_notes(self) -> list[str]:
        """See `Engine.take_notes`."""
        notes, self._notes = self._notes, []
        return notes + ([] if self._graphs is None else self._graphs.take_notes())

    def _run(self, batches: Sequence[Batch]) -> StepResult:
        """One step on batches that are on the device."""
        last = len(batches) - 1
        terms = [self._accumulate(batch, last=at == last) for at, batch in enumerate(batches)]
        return terms, self._optimizer.step()

    def _accumulate(self, batch: Batch, *, last: bool) -> Terms:
        """Add the gradient of one micro-batch."""
        synchronises = last or not isinstance(self._module, nn.parallel.DistributedDataParallel)
        with nullcontext() if synchronises else self._module.no_sync():  # type: ignore[operator]  # DDP's own
            terms: Terms = self._module(batch)[1]
            total = weighted_total(terms, self._weigh(terms))
            if self._clock is not None:
                self._clock.watch_backward(total)
            # DDP averages gradients over ranks, while the ranks' losses add up.
            torch.autograd.backward(total, torch.full_like(total, self._distributed.world_size))
        return {name: term.detach() for name, term in (terms | {"total": total}).items()}

    def take_compute_s(self) -> float | None:
        """See `Engine.take_compute_s`."""
        return None if self._clock is None else self._clock.take_s()

    def terms(self, batch: Batch) -> Terms:
        """See `Engine.terms`."""
        self._step.train()
        with torch.no_grad():
            terms: Terms = self._step(batch.to(self._distributed.device))[1]
        return terms

    def predict(self, batch: Batch) -> Outputs:
        """See `Engine.predict`."""
        self._step.eval()
        if self._graphs is None:
            return self._predict([batch])
        return self._graphs.run(self._predict, [batch], what="A validation batch")

    def _predict(self, batches: Sequence[Batch]) -> Outputs:
        with torch.no_grad():
            outputs: Outputs = self._step(batches[0], with_terms=False)[0]
        return outputs

    def weights(self) -> Iterator[TensorPart]:
        """See `Engine.weights`; rank 0 gives all."""
        if self._distributed.is_main:
            fp32 = dict(self._optimizer.masters()) | self._frozen
            for name, tensor in self._step.state_dict().items():
                yield TensorPart.whole(name, fp32.get(name, tensor).contiguous())

    def moments(self) -> Iterator[TensorPart]:
        """See `Engine.moments`; rank 0 gives all."""
        if self._distributed.is_main:
            for name, tensor in self._optimizer.moments():
                yield TensorPart.whole(name, tensor.contiguous())

    def load(self, weights: TensorReader, moments: TensorReader, num_updates: int) -> None:
        """See `Engine.load`."""
        trained = {name for name, _ in self._optimizer.masters()}
        with torch.no_grad():
            for name, tensor in self._step.state_dict().items():
                if name not in trained:
                    value = weights.read(name).view(tensor.shape)
                    tensor.copy_(value)
                    if name in self._frozen:
                        self._frozen[name] = value
        self._optimizer.load(weights, moments, num_updates)


def rounded_parameters(step: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that a bf16 model computes with in bf16: all but those of modules that compute in fp32 anyway."""
    fp32 = {
        id(parameter)
        for module in step.modules()
        if getattr(module, "computes_in_fp32", False)
        for parameter in module.parameters()
    }
    return {name: parameter for name, parameter in step.named_parameters() if id(parameter) not in fp32}

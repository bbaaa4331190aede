"""DeepSpeed ZeRO behind the `Engine` interface: the only module that imports DeepSpeed."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vadv_dist.config import EngineConfig, OptimizerConfig
from vadv_dist.data.schema import Batch
from vadv_dist.engines.adamw import MOMENTS, fused_adamw
from vadv_dist.engines.compute_clock import ComputeClock
from vadv_dist.engines.deepspeed_config import collects_gradients, deepspeed_config
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.protocol import StepResult, Weigh
from vadv_dist.engines.zero_gradients import Clipping, CollectedGradients, FlattenedGradients, ZeroGradients
from vadv_dist.errors import UserError
from vadv_dist.formats.tensor_parts import HeldTensors, TensorPart, TensorReader
from vadv_dist.objectives.base import weighted_total
from vadv_dist.tasks.base import Outputs, ParameterGroup, Terms, TrainingStep


class DeepSpeedEngine:
    """ZeRO 0 to 3 over fused AdamW; the process group must stand.

    Args:
        step: model and objective, weights in fp32; all ranks hold the same.
        groups: its trained parameters.
        engine: ZeRO stage and offload.
        optimizer: AdamW's constants and the clipping norm.
        distributed: this rank.
        dtype: type in which the model computes; with bfloat16, weights are bfloat16 beside fp32 masters, unless
            `step.keeps_fp32_weights`.
        batch_size, accumulate: rows of a global batch, and micro-batches per step.
    """

    def __init__(
        self,
        step: TrainingStep,
        groups: Sequence[ParameterGroup],
        engine: EngineConfig,
        optimizer: OptimizerConfig,
        distributed: Distributed,
        dtype: torch.dtype,
        *,
        batch_size: int,
        accumulate: int,
    ) -> None:
        deepspeed = import_deepspeed(distributed.device)
        self._groups = groups
        self._distributed = distributed
        self._stage = engine.stage
        self._num_micro_batches = accumulate
        self._clip_norm = optimizer.clip_norm
        fp32 = {n: p.detach().clone() for g in groups for n, p in zip(g.names, g.parameters, strict=True)}
        self._base = fused_adamw(
            [{"params": g.parameters, "lr": g.lr, "weight_decay": g.weight_decay, "name": g.name} for g in groups],
            optimizer,
        )
        if self._stage == 3 and (layers := _layer_classes(step)):
            # Fetched and released as a whole, not module by module: half of the host's time per step.
            deepspeed.utils.set_z3_leaf_modules(step, layers)
        rounds = dtype == torch.bfloat16 and not step.keeps_fp32_weights
        # DeepSpeed's own autocast, of stage 0, also communicates in bf16 from stage 1 on.
        self._autocasts = dtype == torch.bfloat16 and not rounds and self._stage > 0
        torch_linear = nn.functional.linear
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=step.to(distributed.device),
            optimizer=self._base,
            dist_init_required=False,
            config=deepspeed_config(
                engine,
                optimizer,
                batch_size=batch_size,
                accumulate=accumulate,
                world_size=distributed.world_size,
                bf16=rounds or (dtype == torch.bfloat16 and self._stage == 0),
                on_cpu=distributed.device.type == "cpu",
            ),
        )
        # Stage 3 replaces torch's function for the rest of the process, so that autograd keeps no gathered weights.
        # Other models of this process would compute other numbers.
        self._linear, nn.functional.linear = nn.functional.linear, torch_linear
        self._module: nn.Module = self._engine.module
        self._gradients: ZeroGradients | None = None
        self._clipping: Clipping | None = None
        if self._stage >= 1 and not engine.offload_optimizer:
            self._clipping = Clipping(self._optimizer, self._stage, self._clip_norm, distributed)
        self._collects = collects_gradients(engine, distributed.world_size)
        if self._collects:
            self._gradients = CollectedGradients(self._optimizer, distributed)
            self._engine.enable_backward_allreduce = False
        elif self._stage == 2 and not engine.offload_optimizer:
            self._gradients = FlattenedGradients(self._optimizer)
        if self._stage in (1, 2):
            # After a step it makes every parameter a view of the flat weights, which it is already.
            self._optimizer._update_model_bit16_weights = lambda number: None
        self._clock: ComputeClock | None = None
        if distributed.world_size > 1 and self._stage < 3:  # stage 3 gathers weights in both passes
            reduces_after = self._stage == 0 or self._collects
            self._clock = ComputeClock(step, distributed.device, backward=reduces_after)
        # bf16 masters would start from rounded weights.
        self._fill_state(HeldTensors(fp32), None, 0)

    def step(self, batches: Sequence[Batch], weigh: Weigh, lr_factor: float, *, weights_known: bool) -> StepResult:
        """See `Engine.step`."""
        self._engine.train()
        last = len(batches) - 1
        with self._own_linear():  # also in the backward pass, where gradient checkpointing repeats the forward pass
            terms = [self._accumulate(batch, weigh, last=at == last) for at, batch in enumerate(batches)]
        return terms, self._update(lr_factor)

    def _accumulate(self, batch: Batch, weigh: Weigh, *, last: bool) -> Terms:
        """Add the gradient of one micro-batch."""
        terms: Terms = self._forward(batch)[1]
        total = weighted_total(terms, weigh(terms))
        if self._clock is not None:
            self._clock.watch_backward(total)
        # DeepSpeed averages over ranks and micro-batches, while their losses add up.
        ranks = 1 if self._collects else self._distributed.world_size
        self._engine.backward(total * (ranks * self._num_micro_batches))
        if not last:
            self._engine.step()
        return {name: term.detach() for name, term in (terms | {"total": total}).items()}

    def _update(self, lr_factor: float) -> Tensor:
        """Clip and update; return the gradient's norm before."""
        for group, own in zip(self._groups, self._optimizer.param_groups, strict=True):
            own["lr"] = group.lr * lr_factor
        if self._stage == 0:
            # Stage 0 clips inside its step and does not tell the norm; its gradients are whole and averaged by now.
            bound = float("inf") if self._clip_norm is None else self._clip_norm
            norm = nn.utils.clip_grad_norm_([p for _, p in self._trained()], bound)
            self._engine.step()
            return norm.detach()
        if self._gradients is not None:
            self._gradients.hand_over()
        self._engine.step()
        if self._clipping is not None:
            return self._clipping.norm
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32).detach()

    def take_notes(self) -> list[str]:
        """See `Engine.take_notes`."""
        return []

    def take_compute_s(self) -> float | None:
        """See `Engine.take_compute_s`."""
        return None if self._clock is None else self._clock.take_s()

    def terms(self, batch: Batch) -> Terms:
        """See `Engine.terms`."""
        self._engine.train()
        with torch.no_grad(), self._own_linear():
            terms: Terms = self._forward(batch)[1]
        return terms

    def predict(self, batch: Batch) -> Outputs:
        """See `Engine.predict`."""
        self._engine.eval()
        with torch.no_grad(), self._own_linear():
            outputs: Outputs = self._forward(batch, with_terms=False)[0]
        return outputs

    def _forward(self, batch: Batch, *, with_terms: bool = True) -> tuple[Outputs, Terms]:
        device = self._distributed.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._autocasts):
            result: tuple[Outputs, Terms] = self._engine(batch.to(device), with_terms=with_terms)
        return result

    def weights(self) -> Iterator[TensorPart]:
        """See `Engine.weights`; rank 0 gives what all ranks hold alike."""
        trained = {n for group in self._groups for n in group.names}
        for name, parameter in self._parameters():
            if name in trained:
                yield from self._parts(name, parameter, None)
            elif self._stage == 3:
                yield from self._part(name, parameter, *self._partition(parameter, parameter.ds_tensor))
            elif self._distributed.is_main:
                yield TensorPart.whole(name, parameter.contiguous())
        if self._distributed.is_main:
            stored = self._module.state_dict().keys()
            for name, buffer in self._module.named_buffers():
                if name in stored:
                    yield TensorPart.whole(name, buffer.contiguous())

    def moments(self) -> Iterator[TensorPart]:
        """See `Engine.moments`."""
        for name, parameter in self._trained():
            for moment in MOMENTS:
                yield from self._parts(f"{moment}/{name}", parameter, moment)

    def load(self, weights: TensorReader, moments: TensorReader, num_updates: int) -> None:
        """See `Engine.load`."""
        with torch.no_grad():
            for name, parameter in self._parameters():
                if self._stage == 3:
                    start, held = self._partition(parameter, parameter.ds_tensor)
                else:
                    start, held = 0, parameter.view(-1)
                if held.numel():
                    held.copy_(weights.read(name, start, start + held.numel()))
            for name, buffer in self._module.named_buffers():
                if name in weights:
                    buffer.copy_(weights.read(name).view(buffer.shape))
        self._fill_state(weights, moments, num_updates)

    def _fill_state(self, weights: TensorReader, moments: TensorReader | None, num_updates: int) -> None:
        """Set fp32 masters, moments (zeros where None) and the count of updates."""
        self._make_state()
        for state in self._base.state.values():
            state["step"].fill_(num_updates)
        for name, parameter in self._trained():
            for moment in (None, *MOMENTS):
                start, held = self._held(parameter, moment)
                if not held.numel():
                    continue
                if moment is None:
                    held.copy_(weights.read(name, start, start + held.numel()))
                elif moments is None:
                    held.zero_()
                else:
                    held.copy_(moments.read(f"{moment}/{name}", start, start + held.numel()))

    def _parameters(self) -> Iterator[tuple[str, Any]]:
        # Any, for the attributes that DeepSpeed gives them.
        yield from self._module.named_parameters()

    def _parts(self, name: str, parameter: Any, moment: str | None) -> Iterator[TensorPart]:
        if self._stage > 0 or self._distributed.is_main:
            yield from self._part(name, parameter, *self._held(parameter, moment))

    def _part(self, name: str, parameter: Any, start: int, held: Tensor) -> Iterator[TensorPart]:
        if held.numel():
            # Stage 3 leaves a parameter without its shape.
            yield TensorPart(name, tuple(getattr(parameter, "ds_shape", parameter.shape)), start, held)

    def _held(self, parameter: Any, moment: str | None) -> tuple[int, Tensor]:
        """What this rank holds of a trained parameter's fp32 master, or of a moment.

        Returns:
            where it begins in the flattened parameter; and its values, a view, flat, possibly empty.
        """
        if self._stage == 0:
            return 0, (parameter.data if moment is None else self._base.state[parameter][moment]).view(-1)
        if self._stage == 3:
            group, first, size = self._optimizer.grad_position[self._optimizer.get_param_id(parameter)]
            flat = self._optimizer.fp32_partitioned_groups_flat[group]
            values = flat.data if moment is None else self._base.state[flat][moment]
            return self._partition(parameter, values[first : first + size])
        mapping = parameter._hp_mapping
        if mapping is None:  # other ranks hold all of it
            return 0, torch.empty(0)
        fragment: Tensor = mapping.get_hp_fragment(moment)
        return mapping.lp_fragment_address.start, fragment.data

    def _partition(self, parameter: Any, padded: Tensor) -> tuple[int, Tensor]:
        """Of stage 3's equal partitions, this rank's without the padding of the last ones; like `_held`."""
        start = min(padded.numel() * self._distributed.rank, parameter.ds_numel)
        return start, padded.data[: parameter.ds_numel - start]

    def _make_state(self) -> None:
        """Give every tensor that AdamW updates its state, as its first update would."""
        if self._stage == 3:
            tensors = self._optimizer.fp32_partitioned_groups_flat
        else:
            tensors = [tensor for group in self._base.param_groups for tensor in group["params"]]
        for tensor in tensors:
            self._base.state[tensor] = {
                "step": torch.zeros((), dtype=torch.float32, device=tensor.device),
                **{moment: torch.zeros_like(tensor, dtype=torch.float32) for moment in MOMENTS},
            }
        if self._stage in (1, 2):
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()

    @contextmanager
    def _own_linear(self) -> Iterator[None]:
        """Let linear layers compute as DeepSpeed's stage needs it."""
        torch_linear, nn.functional.linear = nn.functional.linear, self._linear
        try:
            yield
        finally:
            nn.functional.linear = torch_linear

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self._groups:
            yield from zip(group.names, group.parameters, strict=True)


def _layer_classes(step: nn.Module) -> list[type[nn.Module]]:
    """Classes of repeated layers: what the model's lists of modules contain.

    A linear layer has nothing to be fetched together, and a `Sequential` would stand for every other one.
    """
    lists = [module for module in step.modules() if isinstance(module, nn.ModuleList)]
    layers = [layer for modules in lists for layer in modules if any(layer.children())]
    return list({type(layer): None for layer in layers if not isinstance(layer, nn.Sequential)})


def import_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed with the accelerator that a device needs.

    Raises:
        UserError: DeepSpeed has chosen another accelerator: `DS_ACCELERATOR` says so, or it was imported before.
    """
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    with _chosen_accelerator(device):
        import deepspeed
        from deepspeed.accelerator import get_accelerator
        from deepspeed.utils import logger

        accelerator = get_accelerator()
    if accelerator.device_name() != device.type:
        raise UserError(
            f"The run uses a {device.type} device, but DeepSpeed uses its {accelerator.device_name()} accelerator. "
            "Unset DS_ACCELERATOR, or set trainer.use_gpu to match it."
        )
    logger.setLevel(logging.ERROR)
    # DeepSpeed calls collectives by names that torch 2.13 is about to retire, and torch warns at every call.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # On CPUs DeepSpeed compiles a shared-memory all-reduce with the machine's C++ compiler, for inference. Training
    # reduces through gloo and needs no compiler. Other accelerators have no such operation.
    shared_memory = accelerator.get_op_builder("ShareMemCommBuilder")
    if shared_memory is not None:
        deepspeed.ops.__compatible_ops__[shared_memory.NAME] = False
    return deepspeed


@contextmanager
def _chosen_accelerator(device: torch.device) -> Iterator[None]:
    """Name the CPU accelerator while DeepSpeed is imported: on a machine with a GPU it would take that one.

    The variable is removed afterwards, so that processes started from here choose for themselves.
    """
    if device.type != "cpu" or "DS_ACCELERATOR" in os.environ:
        yield
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        yield
    finally:
        del os.environ["DS_ACCELERATOR"]

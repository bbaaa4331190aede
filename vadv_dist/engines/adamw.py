"""AdamW over a model's trained parameters, of which some may be bf16 copies of fp32 masters.

A bf16 model needs its weights in bf16 for every matrix product, and in fp32 for updates smaller than bf16's spacing.
Autocast rounds the fp32 weights anew in every step; here the model's own parameters are bf16, and each update writes
them together with their fp32 masters. Masters, moments, bf16 weights and gradients lie in flat buffers, so a step reads
and writes each once, in a few kernels however many parameters there are.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vadv_dist.config.sections import OptimizerConfig
from vadv_dist.formats.tensor_parts import TensorReader
from vadv_dist.tasks.base import ParameterGroup

MOMENTS = ("exp_avg", "exp_avg_sq")
# Elements whose squares a CPU sums at once. It adds them up in few fp32 accumulators, where small ones are lost: the
# norm of 50 million normal values would be 0.4 % off, that of 400 million 7 %.
_NORM_ELEMENTS = 1 << 18


def fused_adamw(groups: Sequence[Mapping[str, Any]], optimizer: OptimizerConfig) -> torch.optim.AdamW:
    """Build AdamW over parameter groups; the fused kernel is several times faster, on a CPU too."""
    return torch.optim.AdamW(
        [dict(group) for group in groups],
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.eps,
        fused=True,
    )


class ClippedAdamW:
    """Clips gradients by their norm and updates with AdamW, without a pass over the gradients for the clipping.

    Nothing in `step` depends on values on the device, so it can be recorded as a CUDA graph.

    Args:
        groups: the trained parameters, fp32, on the device; those named in `rounded` become bf16.
        optimizer: AdamW's constants and the clipping norm.
        rounded: names of the parameters in which the model computes in bf16.
        compiled: update those by one kernel that `torch.compile` generates, for a GPU; its values equal those of the
            default, which reads and writes them half as often again.
    """

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        optimizer: OptimizerConfig,
        *,
        rounded: Collection[str] = (),
        compiled: bool = False,
    ) -> None:
        device = groups[0].parameters[0].device
        self._optimizer = optimizer
        self._compiled = torch.compile(_update, dynamic=True) if compiled else None
        self._own: list[tuple[str, nn.Parameter]] = []
        self._flat: list[_FlatMasters] = []
        self._peak_lrs = [group.lr for group in groups]
        # A recorded step reads its learning rates from tensors. CUDA's kernel takes fp32.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self._lrs = torch.tensor(self._peak_lrs, dtype=dtype, device=device).unbind()
        tensors: list[list[nn.Parameter]] = []
        for group in groups:
            pairs = list(zip(group.names, group.parameters, strict=True))
            own = [(name, parameter) for name, parameter in pairs if name not in rounded]
            flat = [(name, parameter) for name, parameter in pairs if name in rounded]
            self._own += own
            tensors.append([parameter for _, parameter in own])
            if flat:
                # The compiled kernel widens gradients as it reads them.
                kept = torch.bfloat16 if compiled else torch.float32
                self._flat.append(_FlatMasters(flat, self._lrs[len(tensors) - 1], group.weight_decay, kept))
                if not compiled:
                    tensors[-1].append(self._flat[-1].master)
        self._adamw = fused_adamw(
            [
                {"params": params, "lr": lr, "weight_decay": group.weight_decay, "capturable": device.type == "cuda"}
                for params, lr, group in zip(tensors, self._lrs, groups, strict=True)
            ],
            optimizer,
        )
        for tensor in self._tensors():
            step = torch.zeros((), device=device)
            self._adamw.state[tensor] = {"step": step, **{moment: torch.zeros_like(tensor) for moment in MOMENTS}}

    def set_lr(self, factor: float) -> None:
        """Set the learning rates to a fraction of the peak rates."""
        for own, peak in zip(self._lrs, self._peak_lrs, strict=True):
            own.fill_(peak * factor)

    def discard_gradients(self) -> None:
        """Remove all gradients."""
        for _, parameter in self._own:
            parameter.grad = None
        for flat in self._flat:
            flat.discard_gradients()

    def step(self) -> Tensor:
        """Update with the parameters' gradients, remove them, and return their norm before clipping, []."""
        norms = [flat.take_gradients() for flat in self._flat]
        gradients = [parameter.grad for _, parameter in self._own if parameter.grad is not None]
        norms += [_norm(gradients)] if gradients else []
        norm = torch.linalg.vector_norm(torch.stack(norms))
        # Gradients are divided by this number: the clipping of `torch.nn.utils.clip_grad_norm_`.
        clip_norm = self._optimizer.clip_norm
        divisor = None if clip_norm is None else ((norm + 1e-6) / clip_norm).clamp(min=1.0)
        if self._compiled is None:
            for flat in self._flat:
                flat.master.grad = flat.gradient
        self._adamw.grad_scale = divisor  # type: ignore[attr-defined]  # as torch's GradScaler sets it
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        for flat in self._flat:
            if self._compiled is None:
                flat.rounded.copy_(flat.master.detach())
            else:
                self._update_compiled(flat, divisor)
        return norm

    def _update_compiled(self, flat: "_FlatMasters", divisor: Tensor | None) -> None:
        assert self._compiled is not None
        state = self._adamw.state[flat.master]
        state["step"] += 1
        self._compiled(
            flat.master.detach(),
            state["exp_avg"],
            state["exp_avg_sq"],
            flat.rounded,
            flat.gradient,
            step=state["step"],
            lr=flat.lr,
            divisor=torch.ones_like(flat.lr) if divisor is None else divisor,
            betas=(self._optimizer.beta1, self._optimizer.beta2),
            eps=self._optimizer.eps,
            weight_decay=flat.weight_decay,
        )

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        """The fp32 weights by name."""
        yield from ((name, parameter.detach()) for name, parameter in self._own)
        for flat in self._flat:
            yield from flat.split(flat.master.detach())

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """AdamW's moments, named `<moment>/<parameter>`."""
        for moment in MOMENTS:
            yield from ((f"{moment}/{name}", self._adamw.state[parameter][moment]) for name, parameter in self._own)
            for flat in self._flat:
                whole = self._adamw.state[flat.master][moment]
                yield from ((f"{moment}/{name}", part) for name, part in flat.split(whole))

    def load(self, weights: TensorReader, moments: TensorReader, num_updates: int) -> None:
        """Restore masters, moments and the count of updates."""
        with torch.no_grad():
            for name, tensor in self.masters():
                tensor.copy_(weights.read(name).view(tensor.shape))
            for name, tensor in self.moments():
                tensor.copy_(moments.read(name).view(tensor.shape))
        for tensor in self._tensors():
            self._adamw.state[tensor]["step"].fill_(num_updates)
        for flat in self._flat:
            flat.rounded.copy_(flat.master.detach())

    def _tensors(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._own] + [flat.master for flat in self._flat]


class _FlatMasters:
    """Parameters in bf16 as views of one buffer, with their fp32 masters and gradients in buffers of the same order.

    Gradients arrive in bf16; `kept` is the type of their buffer.
    """

    def __init__(
        self, pairs: Sequence[tuple[str, nn.Parameter]], lr: Tensor, weight_decay: float, kept: torch.dtype
    ) -> None:
        self.lr, self.weight_decay = lr, weight_decay
        self._names = [name for name, _ in pairs]
        self._parameters = [parameter for _, parameter in pairs]
        self._shapes = [parameter.shape for parameter in self._parameters]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        with torch.no_grad():
            self.master = nn.Parameter(torch.cat([parameter.flatten() for parameter in self._parameters]).float())
            self.rounded = self.master.to(torch.bfloat16)
        self.gradient = torch.zeros_like(self.master, dtype=kept, requires_grad=False)
        self._gradients = [part for _, part in self.split(self.gradient)]
        for parameter, (_, part) in zip(self._parameters, self.split(self.rounded), strict=True):
            parameter.data = part

    def take_gradients(self) -> Tensor:
        """Move the parameters' gradients to their buffer, and return their norm, []; a missing one counts as zeros."""
        found = [(own, p.grad) for own, p in zip(self._gradients, self._parameters, strict=True) if p.grad is not None]
        if len(found) < len(self._parameters):
            self.gradient.zero_()
        torch._foreach_copy_([own for own, _ in found], [gradient for _, gradient in found])
        self.discard_gradients()
        return _norm([self.gradient])

    def discard_gradients(self) -> None:
        """Remove the parameters' gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def split(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each parameter's name and part of a buffer."""
        for name, shape, part in zip(self._names, self._shapes, torch.split(flat, self._sizes), strict=True):
            yield name, part.view(shape)


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    """Norm over all elements, [], fp32."""
    if gradients[0].device.type == "cpu":
        gradients = [part for gradient in gradients for part in _parts(gradient)]
    norms = torch._foreach_norm(list(gradients), 2, dtype=torch.float32)
    return torch.linalg.vector_norm(torch.stack(norms))


def _parts(tensor: Tensor) -> Sequence[Tensor]:
    if tensor.numel() <= _NORM_ELEMENTS:
        return [tensor]
    return torch.split(tensor, max(1, _NORM_ELEMENTS * len(tensor) // tensor.numel()))


def _update(
    master: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rounded: Tensor,
    gradient: Tensor,
    *,
    step: Tensor,
    lr: Tensor,
    divisor: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """`torch.optim.AdamW` on flat tensors [N], in place; `rounded` becomes the new bf16 weights."""
    scaled = gradient.float() / divisor
    exp_avg.lerp_(scaled, 1 - betas[0])
    exp_avg_sq.mul_(betas[1]).addcmul_(scaled, scaled, value=1 - betas[1])
    deviation = (exp_avg_sq / (1 - betas[1] ** step)).sqrt() + eps
    master.mul_(1 - lr * weight_decay).sub_(exp_avg / deviation * (lr / (1 - betas[0] ** step)))
    rounded.copy_(master)

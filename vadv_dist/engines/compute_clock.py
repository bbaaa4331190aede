"""How long a rank computes gradients by itself, so that the rank that holds all others back has a name.

The duration of a step says nothing about that: all ranks share the duration of the slowest.
"""

import time

import torch
from torch import Tensor, nn


class ComputeClock:
    """Time of a rank's forward and backward passes, each up to where it may wait for other ranks.

    The forward pass is that of the step's module, not of a wrapper that may communicate before it. The backward pass
    ends when all of this rank's gradients are computed: `DistributedDataParallel` waits for their sums after that, in a
    callback that autograd runs later than this one's. On CUDA, events measure the time on the device, and nothing waits
    for them before `take_s`.

    Args:
        step: the training step.
        device: where it computes.
        backward: whether the backward pass is measured too. It is not if ranks wait for one another inside of it.
    """

    def __init__(self, step: nn.Module, device: torch.device, *, backward: bool) -> None:
        self._device, self._measures_backward = device, backward
        self._began: _Mark | None = None
        self._passes: list[tuple[_Mark, _Mark]] = []
        step.register_forward_pre_hook(self._begin_forward)
        step.register_forward_hook(self._end_forward)

    def watch_backward(self, loss: Tensor) -> None:
        """Measure the backward pass of a loss, [], which follows."""
        if self._measures_backward:
            loss.register_hook(self._begin_backward)  # type: ignore[no-untyped-call]  # untyped in torch

    def take_s(self) -> float:
        """Seconds since the last call."""
        passes, self._passes = self._passes, []
        return sum(began.seconds_until(ended) for began, ended in passes)

    def _begin_forward(self, module: nn.Module, arguments: object) -> None:
        if torch.is_grad_enabled():  # a training step, not a prediction
            self._began = _Mark(self._device)

    def _end_forward(self, module: nn.Module, arguments: object, result: object) -> None:
        if torch.is_grad_enabled():
            self._end()

    def _begin_backward(self, gradient: Tensor) -> None:
        self._began = _Mark(self._device)
        torch.autograd.Variable._execution_engine.queue_callback(self._end)

    def _end(self) -> None:
        if self._began is not None:
            self._passes.append((self._began, _Mark(self._device)))
            self._began = None


class _Mark:
    """A moment of this process, or on CUDA of the device's current stream."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        self._time_s = 0.0
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # untyped in torch
            self._event.record()
        else:
            self._time_s = time.perf_counter()

    def seconds_until(self, later: "_Mark") -> float:
        """Seconds from this mark to a later one, which has been reached on the device."""
        if self._event is None or later._event is None:
            return later._time_s - self._time_s
        later._event.synchronize()
        return self._event.elapsed_time(later._event) / 1000

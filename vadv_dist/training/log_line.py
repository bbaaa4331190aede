"""A line of metrics.jsonl about some steps."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LogLine:
    """What a line of metrics.jsonl tells besides the loss terms, gathered since the line before.

    Attributes:
        samples, tokens: clips of all ranks, and tokens of this rank, trained on.
        wait_s: seconds that steps waited for data.
        lr, grad_norm: learning rate, and norm of the gradient before clipping, of the last step.
    """

    def __init__(self) -> None:
        self.samples = self.tokens = 0
        self.wait_s = self.lr = 0.0
        self.grad_norm: Tensor | None = None
        self._began = time.perf_counter()

    def rates(
        self, tokens: int, device: torch.device, utilisation: Callable[[int, int, float], float] | None
    ) -> dict[str, Any]:
        """The rates of a `StepLine`; `tokens` are those of all ranks."""
        seconds = max(time.perf_counter() - self._began, 1e-9)
        return {
            "lr": self.lr,
            "grad_norm": None if self.grad_norm is None else float(self.grad_norm),
            "samples_per_s": self.samples / seconds,
            "tokens_per_s": tokens / seconds,
            "data_wait_s": self.wait_s,
            "line_s": seconds,
            **({"mfu": utilisation(self.samples, tokens, seconds)} if utilisation is not None else {}),
            **({"gpu_memory_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}),
        }

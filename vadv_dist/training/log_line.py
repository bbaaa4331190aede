"""Rates and counts for a line of metrics.jsonl."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LogLine:
    """Counts since the previous line of metrics.jsonl.

    Attributes:
        samples, tokens: clips trained on by all ranks, and tokens trained on by this rank.
        wait_s: seconds that steps waited for data.
        lr, grad_norm: learning rate and gradient norm before clipping, both of the last step.
    """

    def __init__(self) -> None:
        self.samples = self.tokens = 0
        self.wait_s = self.lr = 0.0
        self.grad_norm: Tensor | None = None
        self._began = time.perf_counter()

    def rates(
        self, tokens: int, device: torch.device, utilisation: Callable[[int, int, float], float] | None
    ) -> dict[str, Any]:
        """Rates of a `StepLine`; `tokens` is summed over all ranks."""
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

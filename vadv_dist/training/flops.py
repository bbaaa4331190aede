"""FLOP of a training step, counted on the meta device, for model FLOP utilisation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vadv_dist.config import Config
from vadv_dist.data.sources import Sources
from vadv_dist.tasks import Task, build


@dataclass(frozen=True)
class ClipFlops:
    """FLOP of training on one clip, forward and backward: `per_clip + per_token · tokens`."""

    per_clip: float
    per_token: float

    def of(self, samples: int, tokens: int) -> float:
        """FLOP of training on `samples` clips with `tokens` tokens in total."""
        return self.per_clip * samples + self.per_token * tokens


def clip_flops(config: Config, sources: Sources) -> ClipFlops:
    """Count the matrix products of a forward and a backward pass (torch's `FlopCounterMode`) over one clip.

    Attention grows faster than linearly in the tokens; the line is fitted through 1 and `data.max_tokens`.

    Raises:
        RuntimeError, NotImplementedError: the encoder uses an operation that the meta device does not support.
    """
    with torch.device("meta"):
        task = build(config, sources, weights=False)
    few, many = 1, config.data.max_tokens
    low = _count(task, few)
    if many == few:
        return ClipFlops(per_clip=low, per_token=0.0)
    per_token = (_count(task, many) - low) / (many - few)
    return ClipFlops(per_clip=low - per_token * few, per_token=per_token)


def _count(task: Task, tokens: int) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    meta = torch.device("meta")
    step = task.step.to(meta).train()
    with FlopCounterMode(display=False) as counter:
        outputs, _ = step(task.example(1, tokens, meta), with_terms=False)
        total = torch.stack([value.float().sum() for value in outputs.values() if value.requires_grad]).sum()
        total.backward()  # type: ignore[no-untyped-call]  # untyped in torch
    return float(counter.get_total_flops())


def utilisation(config: Config, sources: Sources, world_size: int) -> Callable[[int, int, float], float] | None:
    """Return model FLOP utilisation as a function of clips, tokens and seconds, or None if it is unknown.

    It is FLOP / (seconds · `telemetry.peak_flops` · number of ranks), with FLOP from `clip_flops`.
    """
    peak = config.telemetry.peak_flops
    if peak is None:
        return None
    try:
        flops = clip_flops(config, sources)
    except (RuntimeError, NotImplementedError):
        return None
    return lambda samples, tokens, seconds: flops.of(samples, tokens) / (seconds * peak * world_size)

"""Learning rate schedule: linear warm-up, then half a cosine to zero (Table 3)."""

import math


def cosine_with_warmup(step: int, *, num_steps: int, warmup_steps: int) -> float:
    """Factor in [0, 1] on the peak learning rate for the update at `step` (from 0).

    Equals `transformers.get_cosine_schedule_with_warmup`, except that the first update does not have rate zero: during
    warm-up the factor is (step + 1) / (warmup_steps + 1).
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress))))

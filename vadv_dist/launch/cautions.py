"""Settings that a run can start with, but hardly anybody means."""

import torch

from vadv_dist.config import Config
from vadv_dist.runtime.terminal import counted

# Peak learning rates of the shipped configs that fine-tune a pretrained encoder, and how far from these is too far.
LOWEST_LR, HIGHEST_LR, FAR = 8e-6, 5e-5, 10.0


def cautions(config: Config, *, train_clips: int, valid_clips: int, steps: int) -> list[str]:
    """What is unusual about a run, a sentence or two each.

    Args:
        config: the configuration.
        train_clips, valid_clips: clips that an epoch and a validation read.
        steps: planned number of steps.
    """
    data, optimizer, trainer = config.data, config.optimizer, config.trainer
    found = []
    if data.batch_size > train_clips:
        found.append(
            f"data.batch_size is {data.batch_size}, but an epoch has {counted(train_clips, 'clip')}, so that it is a "
            "single step. Lower data.batch_size."
        )
    if steps > 1 and optimizer.warmup_steps >= steps:
        found.append(
            f"optimizer.warmup_steps is {optimizer.warmup_steps}, but the run has {counted(steps, 'step')}, so the "
            f"learning rate never reaches optimizer.lr. Set it to about {max(1, steps // 10)}."
        )
    student = config.text_student
    if student is not None and student.pretrained and not LOWEST_LR / FAR <= optimizer.lr <= HIGHEST_LR * FAR:
        found.append(
            f"optimizer.lr is {optimizer.lr:g}; the shipped configs fine-tune pretrained encoders with {LOWEST_LR:g} "
            f"to {HIGHEST_LR:g}. At a far higher rate, an encoder usually forgets what it knows; at a far lower one, "
            "it hardly learns."
        )
    ranks, least = trainer.workers, min(data.batch_size, train_clips, valid_clips)
    if ranks > least:
        found.append(
            f"trainer.num_workers is {ranks}, but a global batch or the validation split has {counted(least, 'clip')}, "
            "so some workers have nothing to do. Use fewer workers."
        )
    if trainer.use_gpu is True and not torch.cuda.is_available():
        found.append(
            "trainer.use_gpu is true, but this machine has no GPU that torch can use (`vadv doctor` says why). The run "
            f"{'can start only where there is one' if ranks == 0 else 'needs them on the nodes of its cluster'}."
        )
    return found

"""DeepSpeed's configuration, derived from ours by one pure function: all batch arithmetic lives here."""

from typing import Any

from vadv_dist.config import EngineConfig, OptimizerConfig

# Elements of a bucket of gradients, 50 MB in bf16. The default, 500 million, holds all of RoBERTa-Large, so nothing is
# reduced before the backward pass ends.
_BUCKET = 25_000_000


def micro_batch_size(batch_size: int, world_size: int, accumulate: int) -> int:
    """Rows of a rank's largest micro-batch: a global batch over ranks and accumulated parts, rounded up."""
    return -(-batch_size // (world_size * accumulate))


def accumulate_of(batch_size: int, world_size: int, workers: int, accumulate: int) -> int:
    """Micro-batches per rank and step if a run for `workers` ranks has only `world_size`.

    Micro-batches stay as large as on all ranks, so that a device has to hold no more than it can.
    """
    return -(-batch_size // (world_size * micro_batch_size(batch_size, workers, accumulate)))


def collects_gradients(engine: EngineConfig, world_size: int) -> bool:
    """Whether `CollectedGradients` reduces the gradients instead of DeepSpeed's hooks."""
    return not engine.offload_optimizer and (engine.stage == 1 or (engine.stage == 2 and world_size == 1))


def deepspeed_config(
    engine: EngineConfig,
    optimizer: OptimizerConfig,
    *,
    batch_size: int,
    accumulate: int,
    world_size: int,
    bf16: bool,
    on_cpu: bool,
) -> dict[str, Any]:
    """Return what `deepspeed.initialize` is given.

    The optimizer itself is ours (fused AdamW with parameter groups), as is the schedule. Batch sizes only tell
    DeepSpeed how many micro-batches make a step: every loss is already divided by its global count.
    """
    micro = micro_batch_size(batch_size, world_size, accumulate)
    zero: dict[str, Any] = {"stage": engine.stage}
    if engine.stage >= 1:
        # Overlap copies gradients on a side stream, which a CPU does not have; DeepSpeed ignores it there.
        zero |= {"contiguous_gradients": True, "overlap_comm": engine.stage >= 2}
    if engine.stage in (1, 2):
        # True would all-reduce all the same (`use_multi_rank_bucket_allreduce`), on one more copy of the gradients.
        zero |= {"reduce_scatter": False, "reduce_bucket_size": _BUCKET}
        if collects_gradients(engine, world_size):
            zero |= {"contiguous_gradients": False, "overlap_comm": False}
        elif on_cpu:
            # A gradient larger than the bucket (here 2 MB) is reduced where it is, without a copy. The defaults copy
            # every gradient into a bucket of 2 GB and from there into a contiguous buffer.
            zero |= {"reduce_bucket_size": 500_000, "contiguous_gradients": False}
    if engine.stage == 3:
        # 0 partitions every parameter: with the default of 100,000, biases stay whole and are handled apart.
        zero |= {"stage3_param_persistence_threshold": 0}
    if engine.offload_optimizer:
        zero |= {"offload_optimizer": {"device": "cpu", "pin_memory": False}}
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulate,
        "train_batch_size": micro * accumulate * world_size,
        # Stage 0 does not tell the gradient's norm, so there the engine clips by itself.
        "gradient_clipping": (optimizer.clip_norm or 0.0) if engine.stage else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Stage 0 keeps fp32 weights and computes under autocast, like the plain engine; the others keep bf16 weights
        # beside fp32 masters.
        # The norm shows overflow. The check would read every gradient twice more, in 13 operations per parameter, and
        # wait for the device.
        "bf16": {"enabled": bf16 and engine.stage > 0, "check_grad_overflow": False},
        "torch_autocast": {"enabled": bf16 and engine.stage == 0, "dtype": "bfloat16"},
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        # Its timer waits for the device twice per step.
        "timers": {"throughput": {"enabled": False}},
    }

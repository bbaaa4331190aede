"""The `trainer`, `engine` and `telemetry` sections of a run's configuration."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Count, Natural, NonNegative, Positive, Switch, require

_DEFAULT_STAGE = 2


@dataclass(frozen=True, config=SETTINGS)
class TrainerConfig:
    """Duration, resources, and checkpoints of training."""

    num_workers: Natural | tuple[Count, Count] = 0
    """0 trains in this process; n ≥ 1 starts n Ray Train workers; [least, most] starts as many as the cluster has room
    for, continues with fewer when a node leaves, and with more when one joins. The global batches are the same whatever
    the number, and `accumulate` is that of the most workers: with fewer, there are more micro-batches of the same
    size."""
    cpus_per_worker: Count | None = None
    """CPUs, and therefore threads, of a Ray Train worker; null divides this machine's cores among the workers, or uses
    1 on an existing cluster."""
    use_gpu: Literal["auto"] | bool = "auto"
    """True, false, or `auto`: use a GPU if there is one."""
    epochs: Count = 100
    """Passes over the training split. Table 3."""
    max_steps: Count | None = None
    """Stop after this many steps, whatever `epochs` is; null sets no limit."""
    accumulate: Count = 1
    """Micro-batches per rank and step."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`fp32`, `bf16`, or `auto`: bf16 on a GPU that computes in it, and on a CPU with instructions for it (AMX or
    AVX512-BF16) if most of the model's layers are at least 256 wide; fp32 elsewhere. A run logs what was chosen and
    why, and keeps it when it is resumed on another machine."""
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    """Precision of fp32 matrix products on a GPU: `highest` is fp32, `high` is TF32 (10 bits of mantissa instead of 23,
    several times faster from the A100 on), `medium` is bf16 inside. It does not affect bf16 training."""
    checkpoint_every_s: NonNegative | None = 300.0
    """Save a checkpoint at the first logged step or end of an epoch once this many seconds have passed since the last
    one, and after the first epoch; null disables both. A checkpoint is also saved at the end of a run and on
    SIGTERM."""
    checkpoint_every_epochs: Count | None = None
    """Also save a checkpoint after every this many epochs; null disables this."""
    checkpoint_every_steps: Count | None = None
    """Also save a checkpoint after every this many steps; null disables this."""
    keep_last: Count = 2
    """Number of checkpoints to keep that training can continue from, each with 12 bytes per trained parameter. If the
    last one is damaged, a run continues from the one before. A complete run keeps one."""
    keep_best: Count = 1
    """Number of epochs with the best validation scores of which the weights are kept, besides the last checkpoint."""
    patience: Count | None = None
    """Epochs without a better validation score after which training stops; null disables early stopping."""
    eval_batch_size: Count = 64
    """Clips per batch in validation and evaluation, over all ranks."""
    max_failures: Natural = 2
    """Number of times that Ray Train restarts lost workers."""
    ray_address: str | None = None
    """`host:port` of the Ray cluster to join, or `local` to start one on this machine; null uses RAY_ADDRESS if it is
    set, and otherwise starts one."""
    wait_for_room_s: NonNegative = 0.0
    """Seconds to wait at the start for an autoscaling cluster to grow to the size that the workers need; 0 does not
    wait. A cluster that is large enough but busy is waited for without limit, and one that has become too small because
    nodes were lost for at least 600 s."""
    hang_timeout_s: Positive | None = 120.0
    """With Ray Train, seconds after which a rank that does not answer, or a run in which no rank makes progress, counts
    as hanging: the stacks of all ranks are written to `failures/`, and the workers are restarted, which counts as one
    of `max_failures`; null never does. Time does not count in the first three steps of an attempt (kernels, graphs,
    connections), while a rank loads or waits for data, in validation, while a checkpoint is written, and at the
    end."""
    grace_s: Positive = 30.0
    """Seconds after SIGTERM or SIGUSR1 in which to finish the step and write a checkpoint before the process exits."""

    def __post_init__(self) -> None:
        least, most = self.min_workers, self.workers
        require(least <= most, "num_workers", [least, most], "[least, most] with least ≤ most")

    @property
    def workers(self) -> int:
        """Number of Ray Train workers, the most if it may change; 0 trains in this process."""
        return self.num_workers[1] if isinstance(self.num_workers, tuple) else self.num_workers

    @property
    def min_workers(self) -> int:
        """Number of Ray Train workers without which the run waits."""
        return self.num_workers[0] if isinstance(self.num_workers, tuple) else self.num_workers


@dataclass(frozen=True, config=SETTINGS)
class EngineConfig:
    """The engine that runs training steps."""

    kind: Literal["auto", "torch", "deepspeed"] = "auto"
    """`torch`, `deepspeed`, or `auto`: plain torch on one device; on several, the engine that fits their memory and
    sends the fewest bytes per step, torch if equal. The choice is made at every start, so that a run may resume on
    another number of devices; `--dry-run` explains it."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    """DeepSpeed ZeRO stage: 0 partitions nothing, 1 optimizer state, 2 also gradients, 3 also weights; null uses 2.
    With `kind: auto`, which chooses the stage, only null is valid."""
    offload_optimizer: bool = False
    """Keep optimizer state in host memory (ZeRO 1 to 3)."""
    graphs: Switch = "auto"
    """Record whole steps and validation batches as CUDA graphs, one for each shape; `auto` does so with `torch` on one
    GPU."""
    compile: Switch = "auto"
    """Generate kernels with `torch.compile` on a GPU: `auto` for the optimizer, `on` also for the models' layers."""

    def __post_init__(self) -> None:
        what = "null, because engine.kind is auto; set engine.kind: deepspeed to choose the stage"
        require(self.kind != "auto" or self.zero_stage is None, "zero_stage", self.zero_stage, what)
        can_offload = self.kind == "deepspeed" and self.stage >= 1
        what = "false, unless engine.kind is deepspeed with zero_stage 1, 2 or 3"
        require(can_offload or not self.offload_optimizer, "offload_optimizer", True, what)

    @property
    def stage(self) -> int:
        """The ZeRO stage; 0 for plain torch."""
        if self.kind != "deepspeed":
            return 0
        return _DEFAULT_STAGE if self.zero_stage is None else self.zero_stage

    @property
    def title(self) -> str:
        """Its name for people, such as `deepspeed ZeRO-2`."""
        return f"deepspeed ZeRO-{self.stage}" if self.kind == "deepspeed" else self.kind


@dataclass(frozen=True, config=SETTINGS)
class TelemetryConfig:
    """Logging and monitoring."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Serve Prometheus metrics on this port of the loopback address (local mode); null disables it."""
    log_every_steps: Count = 10
    """Steps between lines in metrics.jsonl."""
    peak_flops: Positive | None = None
    """Peak FLOP per second of one device in the run's precision, from its data sheet (9.89e14 for bf16 on an H100 SXM);
    null disables model FLOP utilisation."""
    track: Literal["none", "mlflow", "wandb", "tensorboard"] = "none"
    """Experiment tracker that metrics are also sent to: `mlflow`, `wandb` or `tensorboard`."""

"""The `trainer`, `engine` and `telemetry` sections of a run's configuration."""

import math
from dataclasses import dataclass
from typing import Literal

from vadv_dist.config.checks import Section, require, require_at_least


@dataclass(frozen=True)
class TrainerConfig(Section):
    """Duration, resources, and checkpoints of training.

    Args:
        num_workers: 0 trains in this process; n ≥ 1 starts n Ray Train workers.
        cpus_per_worker: CPUs, and therefore threads, of a Ray Train worker; null divides this machine's cores among the
            workers, or uses 1 on an existing cluster.
        use_gpu: true, false, or `auto`: use a GPU if there is one.
        epochs: passes over the training split. Table 3.
        max_steps: stop after this many steps, whatever `epochs` is; null sets no limit.
        accumulate: micro-batches per rank and step.
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that supports it.
        checkpoint_every_steps: also save a checkpoint every this many steps; null saves one after each epoch only.
        keep_best: number of checkpoints with the best validation scores to keep, besides the last.
        patience: epochs without a better validation score after which training stops; null disables early stopping.
        eval_batch_size: clips per batch in validation and evaluation, over all ranks.
        max_failures: number of times that Ray Train restarts lost workers.
        ray_address: `host:port` of the Ray cluster to join, or `local` to start one on this machine; null uses
            RAY_ADDRESS if it is set, and otherwise starts one.
        wait_for_room_s: seconds to wait for an autoscaling cluster to have room for the workers.
        grace_s: seconds after SIGTERM in which to finish the step and write a checkpoint before the process exits.
    """

    num_workers: int = 0
    cpus_per_worker: int | None = None
    use_gpu: Literal["auto"] | bool = "auto"
    epochs: int = 100
    max_steps: int | None = None
    accumulate: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_every_steps: int | None = None
    keep_best: int = 1
    patience: int | None = None
    eval_batch_size: int = 64
    max_failures: int = 2
    ray_address: str | None = None
    wait_for_room_s: float = 0.0
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        counted = {"num_workers": 0, "epochs": 1, "accumulate": 1, "keep_best": 1, "eval_batch_size": 1}
        require_at_least("trainer", self, {**counted, "max_failures": 0})
        optional = ("max_steps", "checkpoint_every_steps", "patience", "cpus_per_worker")
        require_at_least("trainer", self, dict.fromkeys(optional, 1), or_null=True)
        require(0 < self.grace_s < math.inf, "trainer.grace_s", self.grace_s, "a finite positive number of seconds")


@dataclass(frozen=True)
class EngineConfig(Section):
    """The engine that runs training steps.

    Args:
        kind: `torch` or `deepspeed`.
        zero_stage: DeepSpeed ZeRO stage: 0 partitions nothing, 1 optimizer state, 2 also gradients, 3 also weights.
        offload_optimizer: keep optimizer state in host memory (ZeRO 1 to 3).
    """

    kind: Literal["torch", "deepspeed"] = "torch"
    zero_stage: int = 2
    offload_optimizer: bool = False

    def __post_init__(self) -> None:
        require(self.zero_stage in (0, 1, 2, 3), "engine.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        require(
            not self.offload_optimizer or (self.kind == "deepspeed" and self.zero_stage >= 1),
            "engine.offload_optimizer",
            True,
            "false, unless engine.kind is deepspeed with zero_stage 1, 2 or 3",
        )


@dataclass(frozen=True)
class TelemetryConfig(Section):
    """Logging and monitoring.

    Args:
        port: serve Prometheus metrics on this port of the loopback address (local mode); null disables it.
        log_every_steps: steps between lines in metrics.jsonl.
        peak_flops: peak FLOP per second of one device in the run's precision, from its data sheet (9.89e14 for bf16 on
            an H100 SXM); null disables model FLOP utilisation.
        track: experiment tracker that metrics are also sent to: `mlflow`, `wandb` or `tensorboard`.
    """

    port: int | None = None
    log_every_steps: int = 10
    peak_flops: float | None = None
    track: Literal["none", "mlflow", "wandb", "tensorboard"] = "none"

    def __post_init__(self) -> None:
        require(self.port is None or 0 <= self.port < 65536, "telemetry.port", self.port, "a port number, or null")
        require_at_least("telemetry", self, {"log_every_steps": 1})
        peak = self.peak_flops
        require(
            peak is None or 0 < peak < math.inf,
            "telemetry.peak_flops",
            peak,
            "a finite positive FLOP per second, or null",
        )

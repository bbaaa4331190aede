"""The sections of a run's configuration: one frozen dataclass per concern, and the only place with defaults.

Every field can be set in a YAML file and overridden on the command line as `--section.field=value`. Values that no
run can use are refused here; values that only a data set can refute are refused where the data set is opened.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.errors import UserError


def _require(condition: bool, field_name: str, value: object, expected: str) -> None:
    if not condition:
        raise UserError(f"{field_name} is {value!r}, expected {expected}. Change it in the config file or override it.")


@dataclass(frozen=True)
class RunConfig:
    """Names a run and says where it is kept.

    Args:
        name: folder of the run under `storage`; the same name and storage continue the run.
        storage: folder that holds runs; with several nodes, one that all of them see.
        seed: decides weights, order and dropout.
    """

    name: str = "run"
    storage: str = "runs"
    seed: int = 1

    def __post_init__(self) -> None:
        _require(
            bool(self.name) and self.name == self.name.strip() and not set(self.name) & set("/\\:"),
            "run.name",
            self.name,
            "a plain folder name without / \\ or :",
        )
        _require(self.seed >= 0, "run.seed", self.seed, "a whole number from 0")


@dataclass(frozen=True)
class SourceConfig:
    """One data set to train on.

    Args:
        uri: folder that holds its `dataset.json`.
        weight: under `data.mixing: repeats` how often an epoch reads each of its clips (2.5 reads every clip twice and
            half of them a third time); under `equal` and `temperature` a factor on its share; otherwise 1.
        name: what metrics by source call it; null takes the last part of `uri`.
    """

    uri: str
    weight: float = 1.0
    name: str | None = None

    def __post_init__(self) -> None:
        _require(bool(self.uri), "data.sources[].uri", self.uri, "the folder of a data set")
        _require(
            0 < self.weight <= 100,
            "data.sources[].weight",
            self.weight,
            "a number above 0 and up to 100",
        )
        _require(self.name is None or bool(self.name.strip()), "data.sources[].name", self.name, "a name, or null")

    @property
    def title(self) -> str:
        """What the source is called."""
        return self.name or self.uri.rstrip("/").rsplit("/", 1)[-1] or self.uri


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how it is read.

    Args:
        sources: data sets, read as one.
        batch_size: clips of a global batch, summed over ranks and accumulated micro-batches. Table 3.
        window_bytes: bound on the shard bytes of one window; at most two windows are in memory on a node.
        max_tokens: texts are cut after this many tokens. Section 5.1 of the paper.
        bucket_batches: rows are sorted by length within groups of this many batches; 1 turns bucketing off.
        missing: what becomes of clips without a feature that the teacher needs: left out (`drop`), kept with the
            teacher's terms and the missing branch masked (`mask`), or refused (`error`).
        mixing: how several sources are read as one. `proportional` reads every clip once per epoch, `repeats` reads it
            `weight` times. `equal` and `temperature` keep the number of clips of an epoch, but share them out among
            the sources: evenly, or by clips ** (1 / temperature), each times `weight`. Where that is less than a source
            has, an epoch goes on in it where the one before ended.
        temperature: of `mixing: temperature`; 1 is proportional, and the higher the nearer to `equal`. 5 is that of
            Arivazhagan et al. 2019 (arXiv:1907.05019).
    """

    sources: list[SourceConfig] = field(default_factory=list)
    batch_size: int = 4
    window_bytes: int = 256 << 20
    max_tokens: int = 100
    bucket_batches: int = 16
    missing: Literal["drop", "mask", "error"] = "error"
    mixing: Literal["proportional", "equal", "temperature", "repeats"] = "proportional"
    temperature: float = 5.0

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "data.batch_size", self.batch_size, "at least 1")
        _require(self.window_bytes >= 1 << 16, "data.window_bytes", self.window_bytes, "at least 65536 bytes")
        _require(self.max_tokens >= 3, "data.max_tokens", self.max_tokens, "at least 3 tokens")
        _require(self.bucket_batches >= 1, "data.bucket_batches", self.bucket_batches, "at least 1")
        _require(1 <= self.temperature < float("inf"), "data.temperature", self.temperature, "a number from 1")
        if self.mixing == "proportional":
            weights = [source.weight for source in self.sources if source.weight != 1]
            what = "1 where data.mixing is proportional; set data.mixing to repeats, equal or temperature"
            _require(not weights, "data.sources[].weight", weights[0] if weights else 1, what)
        titles = [source.title for source in self.sources]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        what = "another one for each source; give data.sources[].name"
        _require(twice is None, "the name of two of data.sources", twice, what)


@dataclass(frozen=True)
class TeacherConfig:
    """The CLIP-based teacher (section 4.1).

    Args:
        width: D, the width that all branches share (768 for CLIP ViT-L/14); null takes the visual features' width.
        hidden: H, hidden width of its two-layer MLPs. Table 3.
        heads: attention heads; null takes width / 64, at least 1.
        cct_layers: layers of the cross-frame communication transformer; 0 leaves it out.
        mit_layers: layers of each multi-frame integration transformer; 0 leaves them out.
        prompt_layers: layers of video-specific prompting (X-CLIP uses 2).
        prompt_alpha: initial scale of the prompts' video-specific part (X-CLIP: 0.1).
        use_visual, use_face, use_prompting: switch off a branch.
        similarity: prompts against video representation: plain dot product (eq. 8) or X-CLIP's cosine.
        dropout: dropout in the teacher's attention and MLPs.
    """

    width: int | None = None
    hidden: int = 128
    heads: int | None = None
    cct_layers: int = 1
    mit_layers: int = 1
    prompt_layers: int = 2
    prompt_alpha: float = 0.1
    use_visual: bool = True
    use_face: bool = True
    use_prompting: bool = True
    similarity: Literal["dot", "cosine"] = "dot"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _require(self.width is None or self.width >= 1, "teacher.width", self.width, "at least 1, or null")
        _require(self.hidden >= 1, "teacher.hidden", self.hidden, "at least 1")
        _require(self.heads is None or self.heads >= 1, "teacher.heads", self.heads, "at least 1, or null")
        for name in ("cct_layers", "mit_layers"):
            _require(getattr(self, name) >= 0, f"teacher.{name}", getattr(self, name), "at least 0")
        _require(self.prompt_layers >= 1, "teacher.prompt_layers", self.prompt_layers, "at least 1")
        _require(0 <= self.dropout < 1, "teacher.dropout", self.dropout, "a share in [0, 1)")
        _require(self.use_visual or self.use_face, "teacher.use_visual", False, "at least one branch switched on")
        _require(
            self.use_visual or not self.use_prompting,
            "teacher.use_prompting",
            True,
            "false where teacher.use_visual is false: prompting reads the visual branch",
        )


@dataclass(frozen=True)
class StudentConfig:
    """The text student (section 4.2).

    Args:
        encoder: any Hugging Face encoder by name or path, or as `package://NAME/FOLDER` inside an installed package.
        pretrained: load its weights, or build it from its config with random ones.
        pooling: representation of a text: its first token (`cls`) or the mean of its tokens.
        hidden: H, hidden width of the two-layer head. Table 3.
        dropout: dropout before each layer of the head; the encoder keeps its own unless `encoder_dropout` is set.
        encoder_dropout: replaces every dropout rate of the encoder's config; null keeps them.
        freeze_encoder: train the head alone (an ablation).
        gradient_checkpointing: keep less of the forward pass in memory, and compute it again.
    """

    encoder: str = "roberta-large"
    pretrained: bool = True
    pooling: Literal["cls", "mean"] = "cls"
    hidden: int = 128
    dropout: float = 0.1
    encoder_dropout: float | None = None
    freeze_encoder: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        _require(bool(self.encoder), "student.encoder", self.encoder, "a Hugging Face name or a folder")
        _require(self.hidden >= 1, "student.hidden", self.hidden, "at least 1")
        _require(0 <= self.dropout < 1, "student.dropout", self.dropout, "a share in [0, 1)")
        if self.encoder_dropout is not None:
            _require(
                0 <= self.encoder_dropout < 1,
                "student.encoder_dropout",
                self.encoder_dropout,
                "a share in [0, 1)",
            )


@dataclass(frozen=True)
class ObjectiveConfig:
    """The five-term objective (eq. 15) and its ablations.

    Args:
        kind: `step` trains teacher and student together; `none` trains the student alone.
        alpha: weight of the video logit against the label (eq. 10).
        beta: weight of the text logit against the label (eq. 11).
        gamma: weight of the classes' cross-entropy (eq. 12).
        delta: weight of distillation step 1, prompt logit to video logit (eq. 13).
        psi: weight of distillation step 2, video logit to text logit (eq. 14).
        step1, step2: switch a distillation step off.
        detach_targets: let no gradient of step 2 flow into the teacher.
    """

    kind: Literal["step", "none"] = "step"
    alpha: float = 1.0
    beta: float = 10.0
    gamma: float = 1.0
    delta: float = 10.0
    psi: float = 1.0
    step1: bool = True
    step2: bool = True
    detach_targets: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma", "delta", "psi"):
            value = getattr(self, name)
            _require(0 <= value < float("inf"), f"objective.{name}", value, "a finite weight from 0")
        distils = self.kind != "none" and self.step2 and self.psi > 0
        _require(
            self.beta > 0 or distils,
            "objective.beta",
            self.beta,
            "a positive weight: nothing trains the student",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule (Table 3).

    Args:
        lr: peak learning rate of pretrained weights.
        new_module_lr_factor: times `lr` for weights that start from nothing (X-CLIP takes 10).
        weight_decay: on matrices; biases and norms have none.
        warmup_steps: steps over which the rate rises from 0.
        clip_norm: bound on the gradient's norm; null does not clip.
        beta1, beta2, eps: AdamW's own.
    """

    lr: float = 8e-6
    new_module_lr_factor: float = 10.0
    weight_decay: float = 0.01
    warmup_steps: int = 15
    clip_norm: float | None = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(value is None or math.isfinite(value), f"optimizer.{name}", value, "a finite number")
        _require(self.lr > 0, "optimizer.lr", self.lr, "a positive rate")
        _require(
            self.new_module_lr_factor > 0,
            "optimizer.new_module_lr_factor",
            self.new_module_lr_factor,
            "positive",
        )
        _require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "at least 0")
        _require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "at least 0")
        _require(
            self.clip_norm is None or self.clip_norm > 0,
            "optimizer.clip_norm",
            self.clip_norm,
            "positive, or null",
        )
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"optimizer.{name}", getattr(self, name), "a share in [0, 1)")
        _require(self.eps > 0, "optimizer.eps", self.eps, "positive")


@dataclass(frozen=True)
class TrainerConfig:
    """How long, on what, and what is kept.

    Args:
        num_workers: 0 trains in this process; n ≥ 1 starts n Ray Train workers.
        cpus_per_worker: CPUs, and so threads, of a Ray Train worker; null shares this machine's cores among the
            workers, or takes 1 on a cluster that is there already.
        use_gpu: true, false, or `auto`: a GPU where one is found.
        epochs: passes over the training split. Table 3.
        max_steps: stop after this many steps, whatever the epochs; null does not.
        accumulate: micro-batches that one rank runs per step.
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that has it.
        checkpoint_every_steps: also checkpoint inside an epoch; null checkpoints after each epoch only.
        keep_best: checkpoints kept for their validation MAE, besides the last.
        patience: epochs without a better validation MAE after which training ends; null never ends early.
        eval_batch_size: clips per batch in validation and evaluation, over all ranks.
        max_failures: times that Ray Train restarts lost workers before it gives up.
        wait_for_room_s: seconds to wait for a cluster that grows to have room for the workers.
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
    wait_for_room_s: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (
            ("num_workers", 0),
            ("epochs", 1),
            ("accumulate", 1),
            ("keep_best", 1),
            ("eval_batch_size", 1),
            ("max_failures", 0),
        ):
            _require(getattr(self, name) >= low, f"trainer.{name}", getattr(self, name), f"at least {low}")
        for name in ("max_steps", "checkpoint_every_steps", "patience", "cpus_per_worker"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"trainer.{name}", value, "at least 1, or null")


@dataclass(frozen=True)
class EngineConfig:
    """What runs the steps.

    Args:
        kind: `torch`, or `deepspeed`.
        zero_stage: DeepSpeed ZeRO stage: 0 replicates, 1 splits optimizer state, 2 gradients too, 3 weights too.
        offload_optimizer: keep optimizer state in the host's memory (ZeRO 1 to 3).
    """

    kind: Literal["torch", "deepspeed"] = "torch"
    zero_stage: int = 2
    offload_optimizer: bool = False

    def __post_init__(self) -> None:
        _require(self.zero_stage in (0, 1, 2, 3), "engine.zero_stage", self.zero_stage, "0, 1, 2 or 3")
        _require(
            not self.offload_optimizer or (self.kind == "deepspeed" and self.zero_stage >= 1),
            "engine.offload_optimizer",
            True,
            "false, unless engine.kind is deepspeed with zero_stage 1, 2 or 3",
        )


@dataclass(frozen=True)
class TelemetryConfig:
    """What a run tells while it runs.

    Args:
        port: serve Prometheus metrics on this port of the loopback address (local mode); null serves none.
        log_every_steps: a line in metrics.jsonl every so many steps.
        peak_flops: FLOP per second that one device can do in the precision of the run, from its data sheet (9.89e14
            for bf16 on an H100 SXM); null tells no model FLOP utilisation.
        track: also tell the numbers to an experiment tracker: `mlflow`, `wandb` or `tensorboard`.
    """

    port: int | None = None
    log_every_steps: int = 10
    peak_flops: float | None = None
    track: Literal["none", "mlflow", "wandb", "tensorboard"] = "none"

    def __post_init__(self) -> None:
        _require(self.port is None or 0 <= self.port < 65536, "telemetry.port", self.port, "a port number, or null")
        _require(self.log_every_steps >= 1, "telemetry.log_every_steps", self.log_every_steps, "at least 1")
        peak = self.peak_flops
        _require(peak is None or 0 < peak < math.inf, "telemetry.peak_flops", peak, "FLOP per second above 0, or null")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher is trained beside the student."""
        return self.objective.kind != "none"

    @property
    def needed_features(self) -> tuple[str, ...]:
        """Features that the model reads."""
        if not self.has_teacher:
            return ()
        switches = (("visual", self.teacher.use_visual), ("face", self.teacher.use_face))
        return tuple(name for name, on in switches if on)

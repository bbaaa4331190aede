"""The sections of a run's configuration: one frozen dataclass per concern, and the only place with defaults.

The sections `data`, `objective`, and `trainer`, `engine` and `telemetry` are in files of their own.

Every field can be set in a YAML file and overridden on the command line as `--section.field=value`. Values that no
run can use are refused here; values that only a data set can refute are refused where the data set is opened.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from vadv_dist.config.checks import Section, require, require_at_least
from vadv_dist.config.data_sections import DataConfig
from vadv_dist.config.objective_sections import ObjectiveConfig, StepObjectiveConfig
from vadv_dist.config.places import expand_fields
from vadv_dist.config.trainer_sections import EngineConfig, TelemetryConfig, TrainerConfig

PromptingName = Literal["video", "static", "none"]


@dataclass(frozen=True)
class RunConfig(Section):
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
        expand_fields(self, "run", "storage")
        require(
            bool(self.name) and self.name == self.name.strip() and not set(self.name) & set("/\\:"),
            "run.name",
            self.name,
            "a plain folder name without / \\ or :",
        )
        require(self.seed >= 0, "run.seed", self.seed, "a whole number from 0")


@dataclass(frozen=True)
class SentimentConfig(Section):
    """Sentiment as a number: a text student, with a video teacher where the objective has one."""

    kind: Literal["sentiment"] = "sentiment"

    def needed_features(self, config: "Config") -> tuple[str, ...]:
        """Features that the model reads."""
        if not config.has_teacher:
            return ()
        switches = (("visual", config.teacher.use_visual), ("face", config.teacher.use_face))
        return tuple(name for name, on in switches if on)


# What is trained; the first of several kinds is the default.
TaskConfig = SentimentConfig


@dataclass(frozen=True)
class TeacherConfig(Section):
    """The CLIP-based teacher (section 4.1).

    Args:
        width: D, the width that all branches share (768 for CLIP ViT-L/14); null takes the visual features' width.
        hidden: H, hidden width of its two-layer MLPs. Table 3.
        heads: attention heads; null takes width / 64, at least 1.
        cct_layers: layers of the cross-frame communication transformer; 0 leaves it out.
        mit_layers: layers of each multi-frame integration transformer; 0 leaves them out.
        prompt_layers: layers of video-specific prompting (X-CLIP uses 2).
        prompt_alpha: initial scale of the prompts' video-specific part (X-CLIP: 0.1).
        use_visual, use_face: switch off a branch.
        prompting: what the video is compared with (eq. 7). `video`: prompts that attend to the video; `static`: the
            prompts as they are, which leaves the class term and distillation step 1 in place (Table 6, "w/o
            video-specific prompting"); `none`: no prompts, and so neither class term nor step 1.
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
    prompting: PromptingName = "video"
    similarity: Literal["dot", "cosine"] = "dot"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_at_least("teacher", self, {"width": 1, "heads": 1}, or_null=True)
        require_at_least("teacher", self, {"hidden": 1, "cct_layers": 0, "mit_layers": 0, "prompt_layers": 1})
        require(0 <= self.dropout < 1, "teacher.dropout", self.dropout, "a share in [0, 1)")
        require(self.use_visual or self.use_face, "teacher.use_visual", False, "at least one branch switched on")
        require(
            self.use_visual or self.prompting != "video",
            "teacher.prompting",
            self.prompting,
            "static or none where teacher.use_visual is false: video-specific prompts attend to the visual branch",
        )


@dataclass(frozen=True)
class StudentConfig(Section):
    """The text student (section 4.2).

    Args:
        encoder: any Hugging Face encoder by name or path, or as `package://NAME/FOLDER` inside an installed package.
        pretrained: load its weights, or build it from its config with random ones.
        pooling: representation of a text: its first token (`cls`) or the mean of its tokens.
        hidden: H, hidden width of the two-layer head. Table 3.
        dropout: dropout before each layer of the head; the encoder keeps its own unless `encoder_dropout` is set.
        encoder_dropout: replaces every dropout rate of the encoder's config; null keeps them.
        freeze_encoder: train the head alone (an ablation).
        freeze_unused: leave parameters of the encoder that no text uses (Longformer's global attention, XLNet's mask
            embedding) as they are, instead of refusing the encoder.
        gradient_checkpointing: keep less of the forward pass in memory, and compute it again.
    """

    encoder: str = "roberta-large"
    pretrained: bool = True
    pooling: Literal["cls", "mean"] = "cls"
    hidden: int = 128
    dropout: float = 0.1
    encoder_dropout: float | None = None
    freeze_encoder: bool = False
    freeze_unused: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        expand_fields(self, "student", "encoder")
        require(bool(self.encoder), "student.encoder", self.encoder, "a Hugging Face name or a folder")
        require(self.hidden >= 1, "student.hidden", self.hidden, "at least 1")
        require(0 <= self.dropout < 1, "student.dropout", self.dropout, "a share in [0, 1)")
        if self.encoder_dropout is not None:
            require(
                0 <= self.encoder_dropout < 1,
                "student.encoder_dropout",
                self.encoder_dropout,
                "a share in [0, 1)",
            )


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """AdamW and its schedule (Table 3).

    Args:
        lr: peak learning rate of pretrained weights.
        new_module_lr_factor: times `lr` for weights that start from nothing (X-CLIP takes 10).
        layer_decay: the rate of each layer of the student's encoder is that of the layer above it times this, and
            that of the embeddings is one step lower still; the top layer has the whole rate (Sun et al.,
            arXiv:1905.05583, take 0.95). 1 gives all layers one rate.
        weight_decay: on matrices; biases and norms have none.
        warmup_steps: steps over which the rate rises from 0.
        clip_norm: bound on the gradient's norm; null does not clip.
        beta1, beta2, eps: AdamW's own.
    """

    lr: float = 8e-6
    new_module_lr_factor: float = 10.0
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    warmup_steps: int = 15
    clip_norm: float | None = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value is None or math.isfinite(value), f"optimizer.{name}", value, "a finite number")
        require(self.lr > 0, "optimizer.lr", self.lr, "a positive rate")
        require(
            self.new_module_lr_factor > 0,
            "optimizer.new_module_lr_factor",
            self.new_module_lr_factor,
            "positive",
        )
        require(0 < self.layer_decay <= 1, "optimizer.layer_decay", self.layer_decay, "a factor above 0, at most 1")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "at least 0")
        require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "at least 0")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            "optimizer.clip_norm",
            self.clip_norm,
            "positive, or null",
        )
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name}", getattr(self, name), "a share in [0, 1)")
        require(self.eps > 0, "optimizer.eps", self.eps, "positive")


@dataclass(frozen=True)
class Config(Section):
    """A whole run."""

    run: RunConfig = field(default_factory=RunConfig)
    task: TaskConfig = field(default_factory=SentimentConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    objective: ObjectiveConfig = field(default_factory=StepObjectiveConfig)
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
        """Features that the task's model reads."""
        return self.task.needed_features(self)

"""The sections of a run's configuration, one frozen dataclass each, with all its defaults.

`data` is in data_sections.py, `objective` in objective_sections.py, and `trainer`, `engine` and `telemetry` in
trainer_sections.py. Values that are never valid are rejected here; values that depend on the data set are checked when
it is opened.
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
    """Name, location and seed of a run.

    Args:
        name: folder of the run in `storage`; a run with the same name and storage is resumed.
        storage: folder that contains runs; with several nodes, it must be shared by all of them.
        seed: seed of the initial weights, the order of clips, and dropout.
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
        require(self.seed >= 0, "run.seed", self.seed, "an integer of at least 0")


@dataclass(frozen=True)
class SentimentConfig(Section):
    """Sentiment regression: a text student, and a video teacher if the objective uses one."""

    kind: Literal["sentiment"] = "sentiment"

    def needed_features(self, config: "Config") -> tuple[str, ...]:
        """Features that the model reads."""
        if not config.has_teacher:
            return ()
        switches = (("visual", config.teacher.use_visual), ("face", config.teacher.use_face))
        return tuple(name for name, on in switches if on)


# If this becomes a union, its first member is the default.
TaskConfig = SentimentConfig


@dataclass(frozen=True)
class TeacherConfig(Section):
    """The CLIP-based teacher (section 4.1).

    Args:
        width: D, the width that all branches share (768 for CLIP ViT-L/14); null uses the visual features' width.
        hidden: H, hidden width of its two-layer MLPs. Table 3.
        heads: attention heads; null uses width / 64, at least 1.
        cct_layers: layers of the cross-frame communication transformer; 0 removes it.
        mit_layers: layers of each multi-frame integration transformer; 0 removes them.
        prompt_layers: layers of video-specific prompting (X-CLIP uses 2).
        prompt_alpha: initial scale of the prompts' video-specific part (X-CLIP: 0.1).
        use_visual, use_face: enable each branch.
        prompting: prompts that the video is compared with (eq. 7). `video`: prompts that attend to the video; `static`:
            the stored prompts, which keeps the class term and distillation step 1 (Table 6, "w/o video-specific
            prompting"); `none`: no prompts, which removes both.
        similarity: similarity of prompts and video: dot product (eq. 8) or cosine (X-CLIP).
        dropout: dropout rate of the teacher's attention and MLPs.
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
        require(
            self.use_visual or self.use_face, "teacher.use_visual", False, "true, because teacher.use_face is false"
        )
        require(
            self.use_visual or self.prompting != "video",
            "teacher.prompting",
            self.prompting,
            "static or none if teacher.use_visual is false: video-specific prompts attend to the visual branch",
        )


@dataclass(frozen=True)
class StudentConfig(Section):
    """The text student (section 4.2).

    Args:
        encoder: Hugging Face name or path of an encoder, or `package://NAME/FOLDER` inside an installed package.
        pretrained: load the encoder's weights; false initialises it at random from its config.
        pooling: representation of a text: its first token (`cls`) or the mean of its tokens.
        hidden: H, hidden width of the two-layer head. Table 3.
        dropout: dropout rate before each layer of the head.
        encoder_dropout: replaces every dropout rate in the encoder's config; null keeps them.
        freeze_encoder: train only the head (an ablation).
        freeze_unused: freeze parameters of the encoder that texts never use (Longformer's global attention, XLNet's
            mask embedding) instead of rejecting the encoder.
        gradient_checkpointing: save memory by recomputing activations in the backward pass.
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
        new_module_lr_factor: factor on `lr` for randomly initialised weights (X-CLIP uses 10).
        layer_decay: factor between the learning rates of one encoder layer and the next lower one, down to the
            embeddings; the top layer uses the full rate (Sun et al., arXiv:1905.05583, use 0.95). 1 disables it.
        weight_decay: weight decay of matrices; biases and norms have none.
        warmup_steps: steps over which the learning rate rises from 0.
        clip_norm: maximum norm of the gradient; null disables clipping.
        beta1, beta2, eps: AdamW's parameters.
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
    """The configuration of a run."""

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
        """Whether a teacher is trained with the student."""
        return self.objective.kind != "none"

    @property
    def needed_features(self) -> tuple[str, ...]:
        """Features that the task's model reads."""
        return self.task.needed_features(self)

"""The sections of a run's configuration, one frozen dataclass each, with all its defaults.

`data` is in data_sections.py, `student` in student_sections.py, `objective` in objective_sections.py, and `trainer`,
`engine` and `telemetry` in trainer_sections.py. Values that are never valid are rejected here; values that depend on
the data set are checked when it is opened.
"""

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import (
    NUMBER,
    SETTINGS,
    Count,
    Natural,
    NonNegative,
    Number,
    Positive,
    Rate,
    by_kind,
    require,
)
from vadv_dist.config.data_sections import DataConfig
from vadv_dist.config.objective_sections import ObjectiveConfig, StepObjectiveConfig
from vadv_dist.config.places import Place
from vadv_dist.config.rival_sections import FeatureRivalConfig, StudentFeatures, TeacherFeatures
from vadv_dist.config.shape import either
from vadv_dist.config.student_sections import StudentConfig, TextStudentConfig
from vadv_dist.config.trainer_sections import EngineConfig, TelemetryConfig, TrainerConfig

PromptingName = Literal["video", "static", "none"]


@dataclass(frozen=True, config=SETTINGS)
class RunConfig:
    """Name, location and seed of a run."""

    name: str = "run"
    """Folder of the run in `storage`; a run with the same name and storage is resumed. `vadv train` adds a number if
    neither the command line nor a file of the user's gives a name and the folder holds another run."""
    storage: Place = "runs"
    """Folder that contains runs; with several nodes, it must be shared by all of them."""
    seed: Natural = 1
    """Seed of the initial weights, the order of clips, and dropout."""

    def __post_init__(self) -> None:
        is_plain = bool(self.name) and self.name == self.name.strip() and not set(self.name) & set("/\\:")
        require(is_plain, "name", self.name, "a plain folder name without / \\ or :")


@dataclass(frozen=True, config=SETTINGS)
class SentimentConfig:
    """Sentiment: a text student, and a video teacher if the objective uses one. Labels are numbers or classes."""

    kind: Literal["sentiment"] = "sentiment"
    label_kinds: ClassVar[tuple[str, ...]] = ("regression", "class")

    compared_features: ClassVar[tuple[StudentFeatures, ...]] = ("pooled", "hidden")

    def needed_features(self, config: "Config") -> tuple[str, ...]:
        """Features that the model reads."""
        return _of_teacher(config)

    @property
    def student_features(self) -> tuple[str, ...]:
        """Features that the student reads: none, only the words."""
        return ()


@dataclass(frozen=True, config=SETTINGS)
class RetrievalConfig:
    """Audio-visual retrieval: a student that embeds audio and visual vectors, and a video teacher if the objective uses
    one."""

    kind: Literal["retrieval"] = "retrieval"
    label_kinds: ClassVar[tuple[str, ...]] = ("class",)
    compared_features: ClassVar[tuple[StudentFeatures, ...]] = ("embedding", "hidden")
    distil_onto: Annotated[list[Literal["audio", "visual"]], Field(min_length=1)] = field(
        default_factory=lambda: ["audio", "visual"]
    )
    """Modalities of the student that the teacher's knowledge is distilled onto (Table 8)."""

    def __post_init__(self) -> None:
        what = "each modality once"
        require(len(set(self.distil_onto)) == len(self.distil_onto), "distil_onto", self.distil_onto, what)

    def needed_features(self, config: "Config") -> tuple[str, ...]:
        """Features that the model reads."""
        return tuple(dict.fromkeys((*self.student_features, *_of_teacher(config))))

    @property
    def student_features(self) -> tuple[str, ...]:
        """Features that the student reads."""
        return ("audio", "visual")


TaskConfig = Annotated[SentimentConfig | RetrievalConfig, Field(discriminator="kind"), by_kind("sentiment")]


def _of_teacher(config: "Config") -> tuple[str, ...]:
    """Features that the teacher reads; none without a teacher."""
    if not config.has_teacher:
        return ()
    teacher = config.teacher
    switches = (("visual", teacher.use_visual), ("face", teacher.use_face), ("audio", teacher.use_audio))
    return tuple(name for name, on in switches if on)


@dataclass(frozen=True, config=SETTINGS)
class TeacherConfig:
    """The CLIP-based teacher (section 4.1)."""

    width: Count | None = None
    """D, the width that all branches share (768 for CLIP ViT-L/14); null uses the visual features' width."""
    hidden: Count = 128
    """H, hidden width of its two-layer MLPs. Table 3."""
    heads: Count | None = None
    """Attention heads; null uses width / 64, at least 1."""
    cct_layers: Natural = 1
    """Layers of the cross-frame communication transformer; 0 removes it."""
    mit_layers: Natural = 1
    """Layers of each multi-frame integration transformer; 0 removes them."""
    prompt_layers: Count = 2
    """Layers of video-specific prompting (X-CLIP uses 2)."""
    prompt_alpha: Number = 0.1
    """Initial scale of the prompts' video-specific part (X-CLIP: 0.1)."""
    use_visual: bool = True
    """Enable the visual branch."""
    use_face: bool = True
    """Enable the face branch."""
    use_audio: bool = False
    """Enable an audio branch, which the paper does not have; for data sets with audio features, such as COVAREP's."""
    prompting: PromptingName = "video"
    """Prompts that the video is compared with (eq. 7). `video`: prompts that attend to the video; `static`: the stored
    prompts, which keeps the class term and distillation step 1 (Table 6, "w/o video-specific prompting"); `none`: no
    prompts, which removes both."""
    similarity: Literal["dot", "cosine"] = "dot"
    """Similarity of prompts and video: dot product (eq. 8) or cosine (X-CLIP)."""
    dropout: Rate = 0.0
    """Dropout rate of the teacher's attention and MLPs."""

    def __post_init__(self) -> None:
        what = "true, because teacher.use_face and teacher.use_audio are false"
        require(self.use_visual or self.use_face or self.use_audio, "use_visual", False, what)
        what = "static or none if teacher.use_visual is false: video-specific prompts attend to the visual branch"
        require(self.use_visual or self.prompting != "video", "prompting", self.prompting, what)


@dataclass(frozen=True, config=SETTINGS)
class OptimizerConfig:
    """AdamW and its schedule (Table 3)."""

    lr: Positive = 8e-6
    """Peak learning rate of pretrained weights."""
    new_module_lr_factor: Positive = 10.0
    """Factor on `lr` for randomly initialised weights (X-CLIP uses 10)."""
    layer_decay: Annotated[float, Field(gt=0, le=1), NUMBER] = 1.0
    """Factor between the learning rates of one encoder layer and the next lower one, down to the embeddings; the top
    layer uses the full rate (Sun et al., arXiv:1905.05583, use 0.95). 1 disables it."""
    weight_decay: NonNegative = 0.01
    """Weight decay of matrices; biases and norms have none."""
    warmup_steps: Natural = 15
    """Steps over which the learning rate rises from 0."""
    clip_norm: Positive | None = 1.0
    """Maximum norm of the gradient; null disables clipping."""
    beta1: Rate = 0.9
    """Decay rate of AdamW's mean of the gradients."""
    beta2: Rate = 0.999
    """Decay rate of AdamW's mean of the squared gradients."""
    eps: Positive = 1e-8
    """Term added to AdamW's denominator."""


@dataclass(frozen=True, config=SETTINGS)
class Config:
    """The configuration of a run."""

    run: RunConfig = RunConfig()
    task: TaskConfig = SentimentConfig()
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = TextStudentConfig()
    objective: ObjectiveConfig = StepObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    trainer: TrainerConfig = TrainerConfig()
    engine: EngineConfig = EngineConfig()
    telemetry: TelemetryConfig = TelemetryConfig()

    def __post_init__(self) -> None:
        reads_text = isinstance(self.student, TextStudentConfig)
        expected = "text" if self.task.kind == "sentiment" else "a student of audio and visual vectors, such as eics"
        fits = reads_text == (self.task.kind == "sentiment")
        require(fits, "student.kind", self.student.kind, f"{expected}, because task.kind is {self.task.kind}")
        guard = "off" if self.objective.kind == "none" else self.objective.guard
        what = "off or auto: in retrieval, teacher and student have no common measure of what they know"
        require(guard != "on" or self.task.kind == "sentiment", "objective.guard", guard, what)
        if isinstance(self.objective, FeatureRivalConfig):
            self._check_features()

    def _check_features(self) -> None:
        """Require that teacher and student have the features that the objective compares."""
        teacher, (given, student) = self.teacher, self.compared_features
        lacks = {
            "visual": "" if teacher.use_visual else "teacher.use_visual is false",
            "face": "" if teacher.use_face else "teacher.use_face is false",
            "prompts": "" if teacher.prompting == "video" else f"teacher.prompting is {teacher.prompting}",
        }
        others = either(["video", *(name for name, reason in lacks.items() if not reason)])
        what = f"{others}, because {lacks.get(given)}"
        require(not lacks.get(given), "objective.teacher_features", given, what)
        what = f"{either(self.task.compared_features)}, because task.kind is {self.task.kind}"
        require(student in self.task.compared_features, "objective.student_features", student, what)
        what = "hidden, because student.freeze_encoder is true, so nothing below the pooled text is trained"
        is_frozen = self.text_student is not None and self.text_student.freeze_encoder
        require(student != "pooled" or not is_frozen, "objective.student_features", student, what)

    @property
    def text_student(self) -> TextStudentConfig | None:
        """The `student` section of a student that reads text; None for others."""
        return self.student if isinstance(self.student, TextStudentConfig) else None

    @property
    def compared_features(self) -> tuple[TeacherFeatures, StudentFeatures]:
        """The teacher's and the student's features that the objective compares; the defaults if it compares none."""
        own = self.task.compared_features[0]
        if not isinstance(self.objective, FeatureRivalConfig):
            return "video", own
        return self.objective.teacher_features, self.objective.student_features or own

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher is trained with the student."""
        return self.objective.kind != "none"

    @property
    def is_calibrated(self) -> bool:
        """Whether `student.calibrate` is on."""
        switch = "off" if self.text_student is None else self.text_student.calibrate
        return switch == "on" or (switch == "auto" and not self.objective.has_paper_weights)

    @property
    def is_guarded(self) -> bool:
        """Whether `objective.guard` is on; `auto` is off in tasks whose teacher and student have no common measure."""
        return self.task.kind == "sentiment" and self.objective.kind != "none" and self.objective.is_guarded

    @property
    def needed_features(self) -> tuple[str, ...]:
        """Features that the task's model reads."""
        return self.task.needed_features(self)

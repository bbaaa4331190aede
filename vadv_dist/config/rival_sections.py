"""Kinds of the `objective` section that replace step distillation by another method.

Defaults are those of each method's paper or published code. `psi` of FitNet, PKT, CRD and SP is the weight that the
published code of Tian et al. (arXiv:1910.10699) gives them beside a cross-entropy of weight 1. It is a start for a
search: the losses differ in size by orders of magnitude.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Count, Natural, NonNegative, Positive, Rate, Switch, require
from vadv_dist.config.weighting_sections import FixedWeightingConfig, WeightingConfig

COMPARE_FEATURES = ("fitnet", "pkt", "crd", "rkd", "sp", "cckd", "vid", "amid")
TeacherFeatures = Literal["video", "visual", "face", "prompts"]
StudentFeatures = Literal["pooled", "embedding", "hidden"]


# Descriptions in annotations are inherited; docstrings below fields are not.
@dataclass(frozen=True, config=SETTINGS)
class RivalConfig:
    """What all rivals have in common."""

    kind: str
    alpha: Annotated[NonNegative, Field(description="Weight of the video logit's loss (eq. 10).")] = 1.0
    beta: Annotated[
        Positive, Field(description="Weight of the text logit's loss (eq. 11), or of a student's own terms.")
    ] = 10.0
    gamma: Annotated[NonNegative, Field(description="Weight of the classification loss (eq. 12).")] = 1.0
    psi: Annotated[NonNegative, Field(description="Weight of the method's loss.")] = 1.0
    detach_targets: Annotated[
        bool,
        Field(
            description="Stop the gradient of the method's loss from reaching the teacher, which the methods' papers "
            "train beforehand."
        ),
    ] = True
    begin_epoch: Annotated[
        Natural,
        Field(
            description="First epoch, from 0, in which the method's loss trains the student; its weight is 0 before."
        ),
    ] = 0
    ramp_epochs: Annotated[
        Natural, Field(description="Epochs over which the weight of the method's loss then rises to `psi`.")
    ] = 0
    guard: Annotated[
        Switch,
        Field(
            description="Reduce the weight of the method's loss while the teacher knows less than the student: after "
            "each validation, `psi` is multiplied by min(1, r²(video logit, label) / r²(text logit, label)), of "
            "Cohen's κ in place of r² if labels are classes, and by 0 in the first epoch. `auto` is on in "
            "sentiment, and `off` gives the published method."
        ),
    ] = "auto"
    weighting: Annotated[
        WeightingConfig,
        Field(
            description="How the terms are weighted. All kinds except `fixed` determine weights during training; they "
            "exclude terms whose configured weight is 0, and ignore the other configured weights. See docs/tuning.md."
        ),
    ] = FixedWeightingConfig()

    @property
    def has_paper_weights(self) -> bool:
        """Whether the weights are the paper's, which has none for rivals."""
        return False

    @property
    def is_guarded(self) -> bool:
        """Whether `guard` is on."""
        return self.guard != "off"


@dataclass(frozen=True, config=SETTINGS)
class FeatureRivalConfig(RivalConfig):
    """What rivals that compare features have in common."""

    teacher_features: Annotated[
        TeacherFeatures,
        Field(
            description="The teacher's features that are compared: the `video` representation V (eq. 6), the vector of "
            "its `visual` or its `face` branch before both are fused, or the `prompts` adapted to the video (eq. 7), "
            "side by side."
        ),
    ] = "video"
    student_features: Annotated[
        StudentFeatures | None,
        Field(
            description="The student's features that are compared: the `pooled` text in sentiment, the `embedding` of "
            "each modality in retrieval, or in both the `hidden` values that its last layer reads; null takes the "
            "first."
        ),
    ] = None


@dataclass(frozen=True, config=SETTINGS)
class KdConfig(RivalConfig):
    """Softened class probabilities (Hinton et al., arXiv:1503.02531)."""

    kind: Literal["kd"] = "kd"
    temperature: Positive = 4.0
    """Temperature of the softmax."""


@dataclass(frozen=True, config=SETTINGS)
class DkdConfig(RivalConfig):
    """Decoupled KD: the label's class, and the other classes among themselves (Zhao et al., arXiv:2203.08679)."""

    kind: Literal["dkd"] = "dkd"
    temperature: Positive = 4.0
    """Temperature of the softmax."""
    target: NonNegative = 1.0
    """Factor on `psi` for the label's class against all others."""
    non_target: NonNegative = 8.0
    """Factor on `psi` for the other classes among themselves; with two classes there is no such term."""

    def __post_init__(self) -> None:
        require(self.target > 0 or self.non_target > 0, "target", self.target, "above 0 if non_target is 0")


@dataclass(frozen=True, config=SETTINGS)
class FitNetConfig(FeatureRivalConfig):
    """A regressor on the student's features (Romero et al., arXiv:1412.6550)."""

    kind: Literal["fitnet"] = "fitnet"
    psi: NonNegative = 100.0
    """Weight of the method's loss."""


@dataclass(frozen=True, config=SETTINGS)
class PktConfig(FeatureRivalConfig):
    """Neighbours in feature space (Passalis & Tefas, arXiv:1803.10837)."""

    kind: Literal["pkt"] = "pkt"
    psi: NonNegative = 30_000.0
    """Weight of the method's loss."""


@dataclass(frozen=True, config=SETTINGS)
class CrdConfig(FeatureRivalConfig):
    """Contrast with a memory bank (Tian et al., arXiv:1910.10699)."""

    kind: Literal["crd"] = "crd"
    psi: NonNegative = 0.8
    """Weight of the method's loss."""
    width: Count = 128
    """Width of the embeddings that are contrasted."""
    negatives: Count = 16_384
    """Rows drawn from the memory bank per micro-batch."""
    temperature: Positive = 0.07
    """Temperature of the scores."""
    momentum: Rate = 0.5
    """Share of a stored embedding that an update keeps."""


@dataclass(frozen=True, config=SETTINGS)
class RkdConfig(FeatureRivalConfig):
    """Distances and angles between rows (Park et al., arXiv:1904.05068)."""

    kind: Literal["rkd"] = "rkd"
    distance: NonNegative = 25.0
    """Factor on `psi` for distances."""
    angle: NonNegative = 50.0
    """Factor on `psi` for angles."""

    def __post_init__(self) -> None:
        require(self.distance > 0 or self.angle > 0, "distance", self.distance, "above 0 if angle is 0")


@dataclass(frozen=True, config=SETTINGS)
class SpConfig(FeatureRivalConfig):
    """Similarities of rows (Tung & Mori, arXiv:1907.09682)."""

    kind: Literal["sp"] = "sp"
    psi: NonNegative = 3000.0
    """Weight of the method's loss."""


@dataclass(frozen=True, config=SETTINGS)
class CckdConfig(FeatureRivalConfig):
    """Correlations of rows (Peng et al., arXiv:1904.01802)."""

    kind: Literal["cckd"] = "cckd"
    bandwidth: Positive = 0.4
    """γ of the Gaussian kernel."""
    order: Count = 2
    """Highest power of the kernel's Taylor series."""


@dataclass(frozen=True, config=SETTINGS)
class VidConfig(FeatureRivalConfig):
    """A variational bound of the mutual information of features (Ahn et al., arXiv:1904.05835)."""

    kind: Literal["vid"] = "vid"
    initial_variance: Annotated[float, Field(gt=1e-4)] = 5.0
    """Initial variance of every predicted feature."""

    def __post_init__(self) -> None:
        what = "fixed, equal, rlw or uncertainty: the others need losses above 0, and that of vid may be negative"
        allowed = self.weighting.kind not in ("uw_so", "dwa", "famo")
        require(allowed, "weighting.kind", self.weighting.kind, what)


@dataclass(frozen=True, config=SETTINGS)
class DistConfig(RivalConfig):
    """Correlations of predictions over rows and over classes (Huang et al., arXiv:2205.10536)."""

    kind: Literal["dist"] = "dist"
    temperature: Positive = 1.0
    """Temperature of the softmax; a regression logit has none."""
    inter: NonNegative = 1.0
    """Factor on `psi` for the correlation over classes; there is none below three classes."""
    intra: NonNegative = 1.0
    """Factor on `psi` for the correlation over rows."""

    def __post_init__(self) -> None:
        require(self.inter > 0 or self.intra > 0, "inter", self.inter, "above 0 if intra is 0")


@dataclass(frozen=True, config=SETTINGS)
class AmidConfig(FeatureRivalConfig):
    """A reconstruction in the manner of AMID: bounds of mutual information, and an adversary (Chen et al.,
    arXiv:2306.07646)."""

    kind: Literal["amid"] = "amid"
    detach_targets: bool = False
    """Stop the gradient of the method's loss from reaching the video teacher, which the method trains as well."""
    width: Count = 128
    """Width of the embeddings."""
    temperature: Positive = 0.07
    """Initial temperature of the contrastive bounds, which is learned."""
    supervision: NonNegative = 1.0
    """Factor on `psi` for the label of the multimodal teacher, a fusion of video and text features."""
    auxiliary: NonNegative = 1.0
    """Factor on `psi` for the information that the multimodal teacher shares with the video."""
    entropy: NonNegative = 1.0
    """Factor on `psi` for what the student leaves open about the multimodal teacher."""
    adversary_lr: Positive = 1e-3
    """Peak learning rate of the adversary, whatever `optimizer.lr` is."""

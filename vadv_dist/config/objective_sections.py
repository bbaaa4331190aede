"""The `objective` section of a run's configuration: what is optimised.

Each kind has its own fields. To add a kind, add a dataclass and list it in the union.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, NonNegative, Positive, by_kind, require
from vadv_dist.config.rival_sections import (
    CckdConfig,
    CrdConfig,
    DistConfig,
    DkdConfig,
    FitNetConfig,
    KdConfig,
    PktConfig,
    RkdConfig,
    SpConfig,
    VidConfig,
)
from vadv_dist.config.weighting_sections import FixedWeightingConfig, WeightingConfig


@dataclass(frozen=True, config=SETTINGS)
class StepObjectiveConfig:
    """Train teacher and student together with the five-term objective (eq. 15)."""

    kind: Literal["step"] = "step"
    alpha: NonNegative = 1.0
    """Weight of the video logit's regression loss (eq. 10)."""
    beta: NonNegative = 10.0
    """Weight of the text logit's regression loss (eq. 11)."""
    gamma: NonNegative = 1.0
    """Weight of the classification loss (eq. 12)."""
    delta: NonNegative = 10.0
    """Weight of distillation step 1, prompt logit to video logit (eq. 13)."""
    psi: NonNegative = 1.0
    """Weight of distillation step 2, video logit to text logit (eq. 14)."""
    step1: bool = True
    """Enable distillation step 1."""
    step2: bool = True
    """Enable distillation step 2."""
    detach_targets: bool = False
    """Stop the gradient of step 2 from reaching the teacher."""
    weighting: WeightingConfig = FixedWeightingConfig()
    """How the terms are weighted. All kinds except `fixed` determine weights during training; they exclude terms whose
    configured weight is 0, and ignore the other configured weights. See docs/tuning.md."""

    def __post_init__(self) -> None:
        what = "a positive weight, because nothing else trains the student"
        require(self.beta > 0 or (self.step2 and self.psi > 0), "beta", self.beta, what)


@dataclass(frozen=True, config=SETTINGS)
class AloneObjectiveConfig:
    """Train the student without a teacher."""

    kind: Literal["none"] = "none"
    beta: Positive = 10.0
    """Weight of the text logit's regression loss (eq. 11). It matters only if gradients are clipped."""


ObjectiveConfig = Annotated[
    StepObjectiveConfig
    | AloneObjectiveConfig
    | KdConfig
    | DkdConfig
    | FitNetConfig
    | PktConfig
    | CrdConfig
    | RkdConfig
    | SpConfig
    | CckdConfig
    | VidConfig
    | DistConfig,
    Field(discriminator="kind"),
    by_kind("step"),
]

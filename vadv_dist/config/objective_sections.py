"""The `objective` section of a run's configuration: what is optimised.

Each kind has its own fields. To add a kind, add a dataclass and list it in the union.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Natural, NonNegative, Positive, Switch, by_kind, require
from vadv_dist.config.rival_sections import (
    AmidConfig,
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
    """Weight of the video logit's loss (eq. 10)."""
    beta: NonNegative = 10.0
    """Weight of the text logit's loss (eq. 11)."""
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
    route: Literal["steps", "direct"] = "steps"
    """How the prompt logit's knowledge reaches the student. `steps`: through the video logit. `direct`: step 1 ties the
    prompt logit to the text logit instead of the video logit, so that prompt (weight `delta`) and video (`psi`) are
    each distilled onto the student, as step 2 is."""
    detach_targets: bool = False
    """Stop the gradient of step 2 from reaching the teacher."""
    begin_epoch: Natural = 0
    """First epoch, from 0, in which step 2 trains the student; until then its weight is 0."""
    ramp_epochs: Natural = 0
    """Epochs over which the weight of step 2 then rises to `psi`."""
    guard: Switch = "auto"
    """Reduce the weight of step 2 while the teacher knows less than the student: after each validation, `psi` is
    multiplied by min(1, r²(video logit, label) / r²(text logit, label)), of Cohen's κ in place of r² if labels are
    classes, and by 0 in the first epoch. `auto` is on
    unless the weights are the paper's (Table 3: 1, 10, 1, 10, 1) and fixed, or nothing else trains the student."""
    weighting: WeightingConfig = FixedWeightingConfig()
    """How the terms are weighted. All kinds except `fixed` determine weights during training; they exclude terms whose
    configured weight is 0, and ignore the other configured weights. See docs/tuning.md."""

    def __post_init__(self) -> None:
        what = "a positive weight, because nothing else trains the student"
        from_prompt = self.route == "direct" and self.step1 and self.delta > 0
        require(self.beta > 0 or (self.step2 and self.psi > 0) or from_prompt, "beta", self.beta, what)
        what = "off or auto if beta is 0: at first, nothing would train the student"
        require(self.beta > 0 or self.guard != "on", "guard", self.guard, what)
        require(self.beta > 0 or self.begin_epoch == 0, "begin_epoch", self.begin_epoch, "0 if beta is 0")

    @property
    def has_paper_weights(self) -> bool:
        """Whether the weights are those of Table 3, and fixed."""
        weights = (self.alpha, self.beta, self.gamma, self.delta, self.psi)
        return weights == (1.0, 10.0, 1.0, 10.0, 1.0) and self.weighting.kind == "fixed"

    @property
    def is_guarded(self) -> bool:
        """Whether `guard` is on."""
        return self.guard == "on" or (self.guard == "auto" and not self.has_paper_weights and self.beta > 0)


@dataclass(frozen=True, config=SETTINGS)
class AloneObjectiveConfig:
    """Train the student without a teacher."""

    kind: Literal["none"] = "none"
    beta: Positive = 10.0
    """Weight of the text logit's loss (eq. 11). It matters only if gradients are clipped."""

    @property
    def has_paper_weights(self) -> bool:
        """Whether the weights are the paper's: a single one has no other to be weighed against."""
        return True


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
    | DistConfig
    | AmidConfig,
    Field(discriminator="kind"),
    by_kind("step"),
]

"""The section of a run's configuration that says what is optimised: an objective, and what weighs its terms.

Each kind has its own fields. Another kind is a dataclass here (or in a file of its own) and one entry in its union.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vadv_dist.config.checks import Section, require


@dataclass(frozen=True)
class FixedWeightingConfig(Section):
    """The weights of the objective's section."""

    kind: Literal["fixed"] = "fixed"


@dataclass(frozen=True)
class EqualWeightingConfig(Section):
    """1 for every term whose weight is not 0."""

    kind: Literal["equal"] = "equal"


@dataclass(frozen=True)
class UncertaintyWeightingConfig(Section):
    """Learned homoscedastic uncertainty of the terms against labels (Kendall et al. 2018, arXiv:1705.07115).

    Args:
        lr: learning rate of the uncertainties (Adam).
    """

    kind: Literal["uncertainty"] = "uncertainty"
    lr: float = 0.01

    def __post_init__(self) -> None:
        _require_positive("lr", self.lr)


@dataclass(frozen=True)
class UwSoWeightingConfig(Section):
    """A softmax over the inverse losses (Kirchdorfer et al. 2024, arXiv:2408.07985).

    Args:
        temperature: the higher it is, the more alike are the weights.
    """

    kind: Literal["uw_so"] = "uw_so"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("temperature", self.temperature)


@dataclass(frozen=True)
class DwaWeightingConfig(Section):
    """Dynamic weight average: terms that fall slowly get more weight (Liu et al. 2019, arXiv:1803.10704).

    Args:
        temperature: the higher it is, the more alike are the weights. The paper uses 2.
    """

    kind: Literal["dwa"] = "dwa"
    temperature: float = 2.0

    def __post_init__(self) -> None:
        _require_positive("temperature", self.temperature)


@dataclass(frozen=True)
class RlwWeightingConfig(Section):
    """Random weights at every step (Lin et al. 2022, arXiv:2111.10603)."""

    kind: Literal["rlw"] = "rlw"


@dataclass(frozen=True)
class FamoWeightingConfig(Section):
    """Weights that let all terms fall at the same rate (Liu et al. 2023, arXiv:2306.03792).

    Args:
        lr: learning rate of the logits (Adam). The paper uses 0.025.
    """

    kind: Literal["famo"] = "famo"
    lr: float = 0.025

    def __post_init__(self) -> None:
        _require_positive("lr", self.lr)


def _named(value: Any) -> Any:
    """The kind alone stands for that kind with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


WeightingConfig = Annotated[
    FixedWeightingConfig
    | EqualWeightingConfig
    | UncertaintyWeightingConfig
    | UwSoWeightingConfig
    | DwaWeightingConfig
    | RlwWeightingConfig
    | FamoWeightingConfig,
    Field(discriminator="kind"),
    BeforeValidator(_named),
]


@dataclass(frozen=True)
class StepObjectiveConfig(Section):
    """Teacher and student train together under the five-term objective (eq. 15).

    Args:
        alpha: weight of the video logit against the label (eq. 10).
        beta: weight of the text logit against the label (eq. 11).
        gamma: weight of the classes' cross-entropy (eq. 12).
        delta: weight of distillation step 1, prompt logit to video logit (eq. 13).
        psi: weight of distillation step 2, video logit to text logit (eq. 14).
        step1, step2: whether each distillation step is on.
        detach_targets: let no gradient of step 2 flow into the teacher.
        weighting: where the weights of the terms come from. All kinds but `fixed` find weights during training; of the
            five weights they only use which are 0, because those terms stay out. See docs/tuning.md.
    """

    kind: Literal["step"] = "step"
    alpha: float = 1.0
    beta: float = 10.0
    gamma: float = 1.0
    delta: float = 10.0
    psi: float = 1.0
    step1: bool = True
    step2: bool = True
    detach_targets: bool = False
    weighting: WeightingConfig = field(default_factory=FixedWeightingConfig)

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma", "delta", "psi"):
            value = getattr(self, name)
            require(0 <= value < float("inf"), f"objective.{name}", value, "a finite weight from 0")
        distils = self.step2 and self.psi > 0
        require(self.beta > 0 or distils, "objective.beta", self.beta, "a positive weight: nothing trains the student")


@dataclass(frozen=True)
class AloneObjectiveConfig(Section):
    """The student trains alone, without a teacher.

    Args:
        beta: weight of the text logit against the label (eq. 11). It matters where the gradient is clipped.
    """

    kind: Literal["none"] = "none"
    beta: float = 10.0

    def __post_init__(self) -> None:
        require(
            0 < self.beta < float("inf"), "objective.beta", self.beta, "a positive weight: nothing trains the student"
        )


ObjectiveConfig = Annotated[StepObjectiveConfig | AloneObjectiveConfig, Field(discriminator="kind")]


def _require_positive(name: str, value: float) -> None:
    require(0 < value < float("inf"), f"objective.weighting.{name}", value, "a positive number")

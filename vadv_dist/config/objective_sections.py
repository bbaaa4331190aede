"""The `objective` section of a run's configuration: what is optimised, and how its terms are weighted.

Each kind has its own fields. To add a kind, add a dataclass and list it in the union.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vadv_dist.config.checks import Section, require


@dataclass(frozen=True)
class FixedWeightingConfig(Section):
    """The constant weights of the `objective` section."""

    kind: Literal["fixed"] = "fixed"


@dataclass(frozen=True)
class EqualWeightingConfig(Section):
    """Weight 1 for every term whose configured weight is not 0."""

    kind: Literal["equal"] = "equal"


@dataclass(frozen=True)
class UncertaintyWeightingConfig(Section):
    """Learned homoscedastic uncertainty of the supervised terms (Kendall et al. 2018, arXiv:1705.07115).

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
        temperature: higher values make the weights more equal.
    """

    kind: Literal["uw_so"] = "uw_so"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("temperature", self.temperature)


@dataclass(frozen=True)
class DwaWeightingConfig(Section):
    """Dynamic weight average: terms that decrease slowly get more weight (Liu et al. 2019, arXiv:1803.10704).

    Args:
        temperature: higher values make the weights more equal. The paper uses 2.
    """

    kind: Literal["dwa"] = "dwa"
    temperature: float = 2.0

    def __post_init__(self) -> None:
        _require_positive("temperature", self.temperature)


@dataclass(frozen=True)
class RlwWeightingConfig(Section):
    """Random weights, drawn at every step (Lin et al. 2022, arXiv:2111.10603)."""

    kind: Literal["rlw"] = "rlw"


@dataclass(frozen=True)
class FamoWeightingConfig(Section):
    """Weights that make all terms decrease at the same rate (Liu et al. 2023, arXiv:2306.03792).

    Args:
        lr: learning rate of the weights' logits (Adam). The paper uses 0.025.
    """

    kind: Literal["famo"] = "famo"
    lr: float = 0.025

    def __post_init__(self) -> None:
        _require_positive("lr", self.lr)


def _named(value: Any) -> Any:
    """Expand the name of a kind to that kind with its defaults."""
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
    """Train teacher and student together with the five-term objective (eq. 15).

    Args:
        alpha: weight of the video logit's regression loss (eq. 10).
        beta: weight of the text logit's regression loss (eq. 11).
        gamma: weight of the classification loss (eq. 12).
        delta: weight of distillation step 1, prompt logit to video logit (eq. 13).
        psi: weight of distillation step 2, video logit to text logit (eq. 14).
        step1, step2: enable each distillation step.
        detach_targets: stop the gradient of step 2 from reaching the teacher.
        weighting: how the terms are weighted. All kinds except `fixed` determine weights during training; they exclude
            terms whose configured weight is 0, and ignore the other configured weights. See docs/tuning.md.
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
            require(0 <= value < float("inf"), f"objective.{name}", value, "a finite weight of at least 0")
        distils = self.step2 and self.psi > 0
        require(
            self.beta > 0 or distils,
            "objective.beta",
            self.beta,
            "a positive weight, because nothing else trains the student",
        )


@dataclass(frozen=True)
class AloneObjectiveConfig(Section):
    """Train the student without a teacher.

    Args:
        beta: weight of the text logit's regression loss (eq. 11). It matters only if gradients are clipped.
    """

    kind: Literal["none"] = "none"
    beta: float = 10.0

    def __post_init__(self) -> None:
        require(
            0 < self.beta < float("inf"),
            "objective.beta",
            self.beta,
            "a finite positive weight, because nothing else trains the student",
        )


ObjectiveConfig = Annotated[StepObjectiveConfig | AloneObjectiveConfig, Field(discriminator="kind")]


def _require_positive(name: str, value: float) -> None:
    require(0 < value < float("inf"), f"objective.weighting.{name}", value, "a positive number")

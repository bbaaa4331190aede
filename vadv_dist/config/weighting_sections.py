"""The `objective.weighting` section: how the terms of an objective are weighted.

Each kind has its own fields. To add a kind, add a dataclass and list it in the union.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from vadv_dist.config.checks import SETTINGS, Positive, by_kind


@dataclass(frozen=True, config=SETTINGS)
class FixedWeightingConfig:
    """The constant weights of the `objective` section."""

    kind: Literal["fixed"] = "fixed"


@dataclass(frozen=True, config=SETTINGS)
class EqualWeightingConfig:
    """Weight 1 for every term whose configured weight is not 0."""

    kind: Literal["equal"] = "equal"


@dataclass(frozen=True, config=SETTINGS)
class UncertaintyWeightingConfig:
    """Learned homoscedastic uncertainty of the supervised terms (Kendall et al. 2018, arXiv:1705.07115)."""

    kind: Literal["uncertainty"] = "uncertainty"
    lr: Positive = 0.01
    """Learning rate of the uncertainties (Adam)."""


@dataclass(frozen=True, config=SETTINGS)
class UwSoWeightingConfig:
    """A softmax over the inverse losses (Kirchdorfer et al. 2024, arXiv:2408.07985)."""

    kind: Literal["uw_so"] = "uw_so"
    temperature: Positive = 1.0
    """Higher values make the weights more equal."""


@dataclass(frozen=True, config=SETTINGS)
class DwaWeightingConfig:
    """Dynamic weight average: terms that decrease slowly get more weight (Liu et al. 2019, arXiv:1803.10704)."""

    kind: Literal["dwa"] = "dwa"
    temperature: Positive = 2.0
    """Higher values make the weights more equal. The paper uses 2."""


@dataclass(frozen=True, config=SETTINGS)
class RlwWeightingConfig:
    """Random weights, drawn at every step (Lin et al. 2022, arXiv:2111.10603)."""

    kind: Literal["rlw"] = "rlw"


@dataclass(frozen=True, config=SETTINGS)
class FamoWeightingConfig:
    """Weights that make all terms decrease at the same rate (Liu et al. 2023, arXiv:2306.03792)."""

    kind: Literal["famo"] = "famo"
    lr: Positive = 0.025
    """Learning rate of the weights' logits (Adam). The paper uses 0.025."""


WeightingConfig = Annotated[
    FixedWeightingConfig
    | EqualWeightingConfig
    | UncertaintyWeightingConfig
    | UwSoWeightingConfig
    | DwaWeightingConfig
    | RlwWeightingConfig
    | FamoWeightingConfig,
    Field(discriminator="kind"),
    by_kind("fixed"),
]

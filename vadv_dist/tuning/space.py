"""A search space: fields of the configuration and their possible values.

A log axis has no zero, but a weight may be zero. `zero: 0.15` adds a segment below `low` that stands for zero and is
15 % of the whole axis. A weight therefore stays a single number on a single axis, which samplers and importances handle
better than a switch and a number that exists only while the switch is on.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vadv_dist.config import Config, StepObjectiveConfig, config_from_dict, config_to_dict
from vadv_dist.config.load import set_field
from vadv_dist.config.rival_sections import RivalConfig
from vadv_dist.reporting.words import decimals

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = float | int | str | bool | None
Values = Mapping[str, Value]
# Values by the number of epochs after which they take effect, starting at 0. Only those of a population change.
Schedule = tuple[tuple[int, Values], ...]

# The weights of the loss terms, in their order: the numbers among the objective's fields.
WEIGHTS = tuple(each.name for each in dataclasses.fields(StepObjectiveConfig) if isinstance(each.default, float))


@dataclass(frozen=True)
class Entry:
    """The possible values of one field.

    Args:
        field: dotted name.
        kind: kind of the distribution, or `fixed`.
        low, high, step, log: bounds, step and scale of a number.
        zero: share of a log axis that stands for zero.
        choices: the categories; for `fixed`, the single value.
        condition: values that other fields must have for this field to be searched.
    """

    field: str
    kind: Literal["float", "int", "categorical", "fixed"]
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    zero: float = 0.0
    choices: tuple[Value, ...] = ()
    condition: Mapping[str, tuple[Value, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "Entry":
        """An entry whose tuples were written as lists."""
        condition = {name: tuple(values) for name, values in raw["condition"].items()}
        return cls(**{**raw, "choices": tuple(raw["choices"]), "condition": condition})

    @property
    def weight(self) -> str | None:
        """The loss weight that the field sets, such as `alpha`; None for other fields."""
        section, _, name = self.field.partition(".")
        return name if section == "objective" and name in WEIGHTS else None

    @property
    def floor(self) -> float:
        """Lower end of the axis, which is below `low` if a segment stands for zero."""
        if not self.zero:
            return self.low
        return math.exp(math.log(self.low) - math.log(self.high / self.low) * self.zero / (1 - self.zero))

    def suggest(self, trial: "Trial") -> Value:
        """Let an Optuna trial suggest a position on the axis; an existing one is kept."""
        if self.kind == "float":
            return trial.suggest_float(self.field, self.floor, self.high, step=self.step, log=self.log)
        if self.kind == "int":
            step = int(self.step or 1)
            return trial.suggest_int(self.field, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_categorical(self.field, self.choices)

    def draw(self, seed: int) -> Value:
        """Draw a value as the `random` sampler does."""
        import optuna

        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        return self.value(self.suggest(study.ask()))

    def value(self, parameter: Value) -> Value:
        """The field's value at a position on the axis."""
        if self.zero and isinstance(parameter, int | float) and parameter < self.low:
            return 0.0
        return parameter

    def parameter(self, value: Value) -> Value:
        """The position of a value on the axis."""
        if self.zero and value == 0:
            return math.sqrt(self.floor * self.low)
        return float(value) if self.kind == "float" and isinstance(value, int) else value

    def holds(self, value: Value) -> bool:
        """Whether the field can have this value."""
        if self.kind in ("categorical", "fixed"):
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.zero and value == 0:
            return True
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Values that the configuration must accept; it then accepts all others too."""
        if self.kind in ("categorical", "fixed"):
            return self.choices
        ends: list[Value] = [self.low, self.high] if self.kind == "float" else [int(self.low), int(self.high)]
        return (*ends, 0.0) if self.zero else tuple(ends)


@dataclass(frozen=True)
class Space:
    """All entries of a space, in the order in which they are suggested, and values to try right after the default."""

    entries: tuple[Entry, ...]
    first: tuple[Values, ...] = ()

    @property
    def searched(self) -> tuple[Entry, ...]:
        """Entries that are not fixed."""
        return tuple(entry for entry in self.entries if entry.kind != "fixed")

    def suggest(self, trial: "Trial", base: Config) -> dict[str, Value]:
        """Let an Optuna trial suggest every field whose conditions hold; existing parameters are kept."""
        values: dict[str, Value] = {}
        for entry in self.entries:
            if self.applies(entry, values, base):
                fixed = entry.kind == "fixed"
                values[entry.field] = entry.choices[0] if fixed else entry.value(entry.suggest(trial))
        return values

    def parameters(self, values: Values, base: Config) -> dict[str, Value]:
        """Positions of values on their axes; fields that are not given have their value in `base`."""
        merged = {e.field: values.get(e.field, get_field(base, e.field)) for e in self.entries}
        return {e.field: e.parameter(merged[e.field]) for e in self.searched if self.applies(e, merged, base)}

    def default(self, base: Config) -> dict[str, Value]:
        """The first trial: the paper's loss weights (a rival's own), and the configuration's values of other fields.

        Multiplying all weights by a factor changes only the step size. If the space fixes β at another value than the
        paper's, the other weights are scaled with it.
        """
        own = base.objective
        paper = own if isinstance(own, RivalConfig) else StepObjectiveConfig()
        fixed = {entry.field: entry.choices[0] for entry in self.entries if entry.kind == "fixed"}
        beta = fixed.get("objective.beta")
        factor = beta / paper.beta if isinstance(beta, int | float) and beta > 0 else 1.0
        values = {
            entry.field: getattr(paper, entry.weight) * factor if entry.weight else get_field(base, entry.field)
            for entry in self.entries
        }
        return values | fixed

    def applies(self, entry: Entry, values: Values, base: Config) -> bool:
        """Whether an entry's conditions hold, given the values of the entries before it."""
        return all(values.get(name, get_field(base, name)) in allowed for name, allowed in entry.condition.items())


def constant(values: Values) -> Schedule:
    """A schedule without changes."""
    return ((0, values),)


def last_values(schedule: Schedule) -> dict[str, Value]:
    """The values at the end of a schedule."""
    return dict(schedule[-1][1])


def get_field(config: Config, name: str) -> Any:
    """Value of a dotted field; the kind of a section with kinds; None if the section's kind lacks the field."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part, None)
    return getattr(value, "kind", value)


def with_values(config: Config, values: Values) -> Config:
    """Return a configuration with some fields replaced.

    Raises:
        UserError: the configuration does not accept the values.
    """
    raw = config_to_dict(config)
    for name, value in values.items():
        set_field(raw, Config, name, value)
    return config_from_dict(raw)


def value_text(value: Value) -> str:
    """A value as shown to users."""
    return decimals(value) if isinstance(value, float) else str(value)


def values_text(values: Values) -> str:
    """Values on one line, without the names of their sections."""
    return ", ".join(f"{name.rpartition('.')[2]} {value_text(value)}" for name, value in values.items())

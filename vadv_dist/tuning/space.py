"""A search space: fields of the configuration and their possible values.

A logarithm has no zero, but a weight may be zero. `zero: 0.15` adds a stretch below `low` that is 15 % of the axis and
stands for zero. So a weight stays one number of one axis, which samplers and importances handle better than a switch
and a number that exists only where the switch is on.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from vadv_dist.config import Config, StepObjectiveConfig, config_from_dict, config_to_dict
from vadv_dist.config.load import set_field
from vadv_dist.config.shape import tree, walk

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = float | int | str | bool | None
WEIGHTS = ("alpha", "beta", "gamma", "delta", "psi")


@dataclass(frozen=True)
class Entry:
    """The possible values of one field.

    Args:
        field: dotted name.
        kind: `float`, `int`, `categorical`, or `fixed`.
        low, high, step, log: of numbers.
        zero: share of a log axis that stands for zero.
        choices: of categories; the one value where fixed.
        condition: the field is searched only where other fields have one of these values.
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

    @property
    def floor(self) -> float:
        """Where the axis begins: below `low` where a stretch of it stands for zero."""
        if not self.zero:
            return self.low
        return math.exp(math.log(self.low) - math.log(self.high / self.low) * self.zero / (1 - self.zero))

    def suggest(self, trial: "Trial") -> Value:
        """Ask an Optuna trial for a place on the axis; one that it has already stays."""
        if self.kind == "float":
            return trial.suggest_float(self.field, self.floor, self.high, step=self.step, log=self.log)
        if self.kind == "int":
            step = int(self.step or 1)
            return trial.suggest_int(self.field, int(self.low), int(self.high), step=step, log=self.log)
        return trial.suggest_categorical(self.field, self.choices)

    def draw(self, draw: Random) -> Value:
        """Draw a value as the `random` sampler would, from another generator."""
        if self.kind in ("categorical", "fixed"):
            return draw.choice(self.choices)
        if self.step or (self.kind == "int" and not self.log):
            step = self.step or 1
            place = self.low + step * draw.randint(0, math.floor((self.high - self.low) / step + 1e-8))
            return round(place) if self.kind == "int" else place
        if not self.log:
            return draw.uniform(self.low, self.high)
        room = 0.5 if self.kind == "int" else 0.0  # each whole number stands for what is rounded to it
        drawn = math.exp(draw.uniform(math.log(self.floor - room), math.log(self.high + room)))
        return min(max(round(drawn), int(self.low)), int(self.high)) if self.kind == "int" else self.value(drawn)

    def value(self, parameter: Value) -> Value:
        """The field's value for a place on the axis."""
        if self.zero and isinstance(parameter, int | float) and parameter < self.low:
            return 0.0
        return parameter

    def parameter(self, value: Value) -> Value:
        """A place on the axis for a field's value."""
        if self.zero and value == 0:
            return math.sqrt(self.floor * self.low)
        return float(value) if self.kind == "float" and isinstance(value, int) else value

    def holds(self, value: Value) -> bool:
        """Whether a field's value lies on the axis."""
        if self.kind in ("categorical", "fixed"):
            return any(value == choice and type(value) is type(choice) for choice in self.choices) or (
                self.kind == "fixed" and value == self.choices[0]
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.zero and value == 0:
            return True
        steps = (value - self.low) / self.step if self.step else 0.0
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-8

    @property
    def extremes(self) -> tuple[Value, ...]:
        """Values that the config must accept for it to accept all."""
        if self.kind in ("categorical", "fixed"):
            return self.choices
        ends: list[Value] = [self.low, self.high] if self.kind == "float" else [int(self.low), int(self.high)]
        return (*ends, 0.0) if self.zero else tuple(ends)


@dataclass(frozen=True)
class Space:
    """All entries of a space, in the order in which they are suggested."""

    entries: tuple[Entry, ...]
    first: tuple[Mapping[str, Value], ...] = ()

    @property
    def searched(self) -> tuple[Entry, ...]:
        """Entries that are not fixed."""
        return tuple(entry for entry in self.entries if entry.kind != "fixed")

    def suggest(self, trial: "Trial", base: Config) -> dict[str, Value]:
        """Ask an Optuna trial for every field that its conditions switch on; parameters that it has already stay."""
        values: dict[str, Value] = {}
        for entry in self.entries:
            if not self.applies(entry, values, base):
                continue
            if entry.kind == "fixed":
                values[entry.field] = entry.choices[0]
            else:
                values[entry.field] = entry.value(entry.suggest(trial))
        return values

    def parameters(self, values: Mapping[str, Value], base: Config) -> dict[str, Value]:
        """Places on the axes for a set of values; fields that are not named keep those of `base`."""
        merged = {e.field: values.get(e.field, get_field(base, e.field)) for e in self.entries}
        return {e.field: e.parameter(merged[e.field]) for e in self.searched if self.applies(e, dict(merged), base)}

    def default(self, base: Config) -> dict[str, Value]:
        """The first trial: the paper's weights, and the config's own values for everything else.

        All five weights times one factor change only the size of a step; where the space fixes β at another value than
        the paper's, the paper's weights are taken in proportion.
        """
        fixed = {entry.field: entry.choices[0] for entry in self.entries if entry.kind == "fixed"}
        paper = StepObjectiveConfig()
        beta = fixed.get("objective.beta", paper.beta)
        factor = float(beta) / paper.beta if isinstance(beta, int | float) and beta > 0 else 1.0
        values: dict[str, Value] = {}
        for entry in self.entries:
            section, name = entry.field.split(".", 1)
            if entry.kind == "fixed":
                values[entry.field] = entry.choices[0]
            elif section == "objective" and name in WEIGHTS:
                values[entry.field] = getattr(paper, name) * factor
            else:
                values[entry.field] = get_field(base, entry.field)
        return values

    def applies(self, entry: Entry, values: Mapping[str, Value], base: Config) -> bool:
        """Whether an entry's conditions hold for the values of those before it."""
        return all(values.get(name, get_field(base, name)) in allowed for name, allowed in entry.condition.items())

    def to_json(self) -> dict[str, Any]:
        """As plain containers, to tell whether a search goes on with the same space."""
        return {entry.field: _plain(dataclasses.asdict(entry)) for entry in self.entries}


def known_fields() -> list[str]:
    """Dotted names of all fields."""
    return list(dict.fromkeys(name for name, _ in walk(tree(Config)) if "." in name))


def get_field(config: Config, name: str) -> Any:
    """Value of a dotted field; of a section with kinds, its kind; None where the section's kind lacks the field."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part, None)
    return getattr(value, "kind", value)


def with_values(config: Config, values: Mapping[str, Value]) -> Config:
    """Return a configuration with some fields replaced.

    Raises:
        UserError: the config refuses them.
    """
    raw = config_to_dict(config)
    for name, value in values.items():
        set_field(raw, Config, name, value)
    return config_from_dict(raw)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value

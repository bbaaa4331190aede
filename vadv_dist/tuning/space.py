"""A search space: fields of the configuration with what they may become, read from YAML and checked before use.

    search: {num_trials: 40}                 # see vadv_dist/config/search.py
    space:
      objective.beta: {fixed: 10.0}
      objective.alpha: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.15}
      student.pooling: {distribution: categorical, choices: [cls, mean]}
      optimizer.warmup_steps: {distribution: int, low: 0, high: 200, step: 10}
      objective.detach_targets: {distribution: categorical, choices: [false, true], condition: {objective.step2: true}}
    first:                                   # tried right after the default
      - {objective.alpha: 0.5}

A logarithm has no zero, but a weight may be zero. `zero: 0.15` adds a stretch below `low` that is 15 % of the axis and
stands for zero. So a weight stays one number of one axis, which samplers and importances handle better than a switch
and a number that exists only where the switch is on.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vadv_dist.config import Config, config_from_dict, config_to_dict
from vadv_dist.config.load import read_yaml
from vadv_dist.config.sections import ObjectiveConfig
from vadv_dist.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = float | int | str | bool | None
WEIGHTS = ("alpha", "beta", "gamma", "delta", "psi")

_KEYS = ("distribution", "low", "high", "step", "log", "zero", "choices", "fixed", "condition")
_PARTS = ("search", "space", "first")
# What a search may not change: these say where a run is kept and on what it is computed, which clips it is judged on
# (trials could not be compared), and how long it is (rungs are counted in epochs of one schedule).
_NOT_SEARCHED = ("run", "telemetry", "engine", "data.sources", "data.missing", "trainer")


@dataclass(frozen=True)
class Entry:
    """What one field may become.

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
            if not self._applies(entry, values, base):
                continue
            if entry.kind == "fixed":
                values[entry.field] = entry.choices[0]
            else:
                values[entry.field] = entry.value(entry.suggest(trial))
        return values

    def parameters(self, values: Mapping[str, Value], base: Config) -> dict[str, Value]:
        """Places on the axes for a set of values; fields that are not named keep those of `base`."""
        merged = {e.field: values.get(e.field, get_field(base, e.field)) for e in self.entries}
        return {e.field: e.parameter(merged[e.field]) for e in self.searched if self._applies(e, dict(merged), base)}

    def default(self, base: Config) -> dict[str, Value]:
        """The first trial: the paper's weights, and the config's own values for everything else.

        All five weights times one factor change only the size of a step; where the space fixes β at another value than
        the paper's, the paper's weights are taken in proportion.
        """
        fixed = {entry.field: entry.choices[0] for entry in self.entries if entry.kind == "fixed"}
        paper = ObjectiveConfig()
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

    def _applies(self, entry: Entry, values: Mapping[str, Value], base: Config) -> bool:
        return all(values.get(name, get_field(base, name)) in allowed for name, allowed in entry.condition.items())

    def to_json(self) -> dict[str, Any]:
        """As plain containers, to tell whether a search goes on with the same space."""
        return {entry.field: _plain(dataclasses.asdict(entry)) for entry in self.entries}


def find_space(space: str | Path) -> Path:
    """Return a space file, or the shipped one of that name.

    Raises:
        UserError: there is neither.
    """
    path = Path(space)
    if path.exists():
        return path
    places = (Path(__file__).parents[2] / "tune_spaces", Path(sys.prefix) / "share" / "vadv" / "tune_spaces")
    shipped = {found.stem: found for place in reversed(places) for found in sorted(place.glob("*.yaml"))}
    if path.stem in shipped and path.parent.name in ("", "tune_spaces"):
        return shipped[path.stem]
    raise UserError(
        f"{space} does not exist. Give a space file, or a shipped one (there are: {', '.join(sorted(shipped))})."
        f"{did_you_mean(path.stem, shipped)}"
    )


def load_space(path: str | Path, base: Config) -> tuple[Space, dict[str, Any]]:
    """Read a space file and check it against the configuration that it starts from.

    Returns:
        the space, and the file's `search` part as it stands there.
    Raises:
        UserError: not a space; an unknown field or key (with the nearest name); bounds that the config refuses; a
            default that lies outside.
    """
    raw = read_yaml(path)
    for key in raw:
        if key not in _PARTS:
            raise UserError(
                f"{path}: unknown part {key!r} (there are: {', '.join(_PARTS)}).{did_you_mean(str(key), _PARTS)}"
            )
    search, fields = raw.get("search") or {}, raw.get("space")
    if not isinstance(search, dict):
        raise UserError(f"{path}: `search` is {search!r}, expected settings such as `num_trials: 40`.")
    if not isinstance(fields, dict) or not fields:
        raise UserError(
            f"{path}: `space` names no fields. Write entries such as `objective.alpha: {{distribution: …}}`."
        )
    entries: list[Entry] = []
    for name, given in fields.items():
        where = f"{path}: {name}"
        require_field(str(name), where)
        entry = _entry(where, str(name), given)
        _require_accepted(entry, where, base)
        entries.append(entry)
    _require_order(entries, path)
    space = Space(tuple(entries))
    if not space.searched:
        raise UserError(f"{path}: every field is fixed, so there is nothing to search. Give one a distribution.")
    _require_default(space, base, path)
    return replace(space, first=_first(raw.get("first"), space, base, path)), search


def require_field(name: str, where: str) -> None:
    """Refuse a field that the configuration does not have, or that a search may not change.

    Raises:
        UserError: with the nearest name.
    """
    known = known_fields()
    if name not in known:
        section = name.split(".", 1)[0]
        there = [n for n in known if n.startswith(f"{section}.")]
        listed = f" (fields there: {', '.join(there)})" if there else ""
        raise UserError(f"{where}: the config has no such field{listed}.{did_you_mean(name, known)}")
    for refused in _NOT_SEARCHED:
        if name == refused or name.startswith(f"{refused}."):
            raise UserError(
                f"{where}: {refused} cannot be searched, as trials that differ in it cannot be compared. Set it in the "
                "config file or override it."
            )


def known_fields() -> list[str]:
    """Dotted names of all fields."""
    return [
        f"{section.name}.{f.name}"
        for section in dataclasses.fields(Config)
        for f in dataclasses.fields(section.type)  # type: ignore[arg-type]  # a dataclass, as all sections
    ]


def get_field(config: Config, name: str) -> Any:
    """Value of a dotted field."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def with_values(config: Config, values: Mapping[str, Value]) -> Config:
    """Return a configuration with some fields replaced.

    Raises:
        UserError: the config refuses them.
    """
    raw = config_to_dict(config)
    for name, value in values.items():
        section, key = name.split(".", 1)
        raw[section][key] = value
    try:
        return config_from_dict(raw)
    except UserError:
        raise
    except Exception as error:  # jsonargparse raises several kinds, some around our own
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise UserError(" ".join(str(error).split())) from None


def _entry(where: str, name: str, given: Any) -> Entry:
    if not isinstance(given, dict):
        raise UserError(f"{where} is {given!r}, expected a mapping such as {{distribution: float, low: 0, high: 1}}.")
    for key in given:
        if key not in _KEYS:
            raise UserError(
                f"{where}: unknown key {key!r} (there are: {', '.join(_KEYS)}).{did_you_mean(str(key), _KEYS)}"
            )
    condition = _condition(where, given.get("condition"))
    if "fixed" in given:
        if extra := sorted(set(given) - {"fixed", "condition"}):
            raise UserError(f"{where}: it is fixed, so {', '.join(extra)} has no meaning. Remove one or the other.")
        return Entry(name, "fixed", choices=(given["fixed"],), condition=condition)
    kinds = ("float", "int", "categorical")
    kind = given.get("distribution")
    if kind not in kinds:
        raise UserError(
            f"{where}: distribution is {kind!r}, expected one of {', '.join(kinds)}, or `fixed: VALUE`."
            f"{did_you_mean(str(kind), kinds)}"
        )
    if kind == "categorical":
        choices = given.get("choices")
        if not isinstance(choices, list) or not choices or extra_keys(given, ("choices",)):
            raise UserError(f"{where}: a categorical field takes `choices: [A, B]` and nothing of numbers.")
        return Entry(name, "categorical", choices=tuple(choices), condition=condition)
    return _numbers(where, name, kind, given, condition)


def extra_keys(given: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """Keys of an entry besides those of every entry and the wanted ones."""
    return sorted(set(given) - {"distribution", "condition", *wanted})


def _numbers(
    where: str, name: str, kind: Literal["float", "int"], given: Mapping[str, Any], condition: dict[str, Any]
) -> Entry:
    if "choices" in given:
        raise UserError(f"{where}: choices belong to `distribution: categorical`.")
    for key in ("low", "high", *(k for k in ("step", "zero") if k in given)):
        value = given.get(key)
        number = isinstance(value, int) or (isinstance(value, float) and (kind == "float" or key == "zero"))
        if isinstance(value, bool) or not number or not math.isfinite(value):  # type: ignore[arg-type]
            # YAML reads 1e-6 as text: a number in that form needs its point.
            hint = " YAML needs a point there: 1.0e-6." if isinstance(value, str) and "e" in value else ""
            raise UserError(
                f"{where}: {key} is {value!r}, expected {'a number' if kind == 'float' else 'a whole number'}.{hint}"
            )
    low, high, log = given["low"], given["high"], given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{where}: log is {log!r}, expected true or false.")
    if not low < high:
        raise UserError(f"{where}: low {low} is not below high {high}. Use `fixed: {low}` for a single value.")
    if log and low <= 0:
        raise UserError(f"{where}: low {low} has no logarithm. Give a positive one; `zero: 0.1` adds zero to the axis.")
    step, zero = given.get("step"), given.get("zero", 0.0)
    if step is not None and (step <= 0 or log):
        raise UserError(f"{where}: step is {step}, expected a positive number, and not with log.")
    if zero and not (0 < zero < 1 and log and kind == "float"):
        raise UserError(f"{where}: zero is {zero}, expected a share between 0 and 1 of a float's log axis.")
    return Entry(name, kind, float(low), float(high), step, log, float(zero), condition=condition)


def _condition(where: str, given: Any) -> dict[str, tuple[Value, ...]]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise UserError(f"{where}: condition is {given!r}, expected fields and values: {{objective.step2: true}}.")
    for name in given:
        if str(name) not in known_fields():
            raise UserError(f"{where}: its condition names {name}, no field.{did_you_mean(str(name), known_fields())}")
    return {name: tuple(value) if isinstance(value, list) else (value,) for name, value in given.items()}


def _require_order(entries: Sequence[Entry], path: str | Path) -> None:
    names = [entry.field for entry in entries]
    for place, entry in enumerate(entries):
        if late := [name for name in entry.condition if name in names[place:]]:
            raise UserError(f"{path}: {entry.field}: its condition names {late[0]}, which must stand above it.")


def _require_accepted(entry: Entry, where: str, base: Config) -> None:
    for value in entry.extremes:
        try:
            with_values(base, {entry.field: value})
        except UserError as error:
            raise UserError(f"{where}: the space reaches {value!r}, which the config refuses. {error}") from None


def _require_default(space: Space, base: Config, path: str | Path) -> None:
    for name, value in space.default(base).items():
        entry = next(e for e in space.entries if e.field == name)
        if not entry.holds(value):
            weight = name.startswith("objective.") and name.split(".")[1] in WEIGHTS
            whose = "the paper's weight" if weight else "the config's own value"
            raise UserError(
                f"{path}: {name}: {whose} {value!r} is always tried first, and lies outside. Widen the space, "
                + ("or take a β that the paper's ratio fits." if weight else "or change the config.")
            )


def _first(given: Any, space: Space, base: Config, path: str | Path) -> tuple[dict[str, Value], ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(values, dict) for values in given):
        raise UserError(f"{path}: `first` is {given!r}, expected a list of mappings from fields to values.")
    by_name = {entry.field: entry for entry in space.searched}
    for number, values in enumerate(given, 1):
        for name, value in values.items():
            if name not in by_name:
                raise UserError(
                    f"{path}: first, entry {number}: {name} is not searched.{did_you_mean(str(name), by_name)}"
                )
            if not by_name[name].holds(value):
                raise UserError(f"{path}: first, entry {number}: {name} {value!r} lies outside the space.")
    return tuple({**space.default(base), **values} for values in given)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value

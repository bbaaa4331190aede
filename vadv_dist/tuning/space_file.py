"""Read a search space from YAML and check it against the configuration before anything starts.

search: {num_trials: 40}                 # see vadv_dist/config/search.py
space:
  objective.beta: {fixed: 10.0}
  objective.alpha: {distribution: float, low: 0.01, high: 100, log: true, zero: 0.15}
  student.pooling: {distribution: categorical, choices: [cls, mean]}
  optimizer.warmup_steps: {distribution: int, low: 0, high: 200, step: 10}
  objective.detach_targets: {distribution: categorical, choices: [false, true], condition: {objective.step2: true}}
first:                                   # tried right after the default
  - {objective.alpha: 0.5}
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vadv_dist.config import Config
from vadv_dist.config.load import read_yaml
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.tuning.space import WEIGHTS, Entry, Space, Value, known_fields, with_values

_KEYS = ("distribution", "low", "high", "step", "log", "zero", "choices", "fixed", "condition")
_PARTS = ("search", "space", "first")
# What a search may not change: these say where a run is kept and on what it is computed, which clips it is judged on
# (trials could not be compared), and how long it is (rungs are counted in epochs of one schedule).
_NOT_SEARCHED = ("run", "telemetry", "engine", "data.sources", "data.missing", "trainer")


def find_space(space: str | Path) -> Path:
    """Return a space file, or the shipped one of that name.

    Raises:
        UserError: there is neither.
    """
    path = Path(space)
    if path.is_file():
        return path
    places = (Path(__file__).parents[2] / "tune_spaces", Path(sys.prefix) / "share" / "vadv" / "tune_spaces")
    shipped = {found.stem: found for place in reversed(places) for found in sorted(place.glob("*.yaml"))}
    if path.stem in shipped and path.parent.name in ("", "tune_spaces"):
        return shipped[path.stem]
    raise UserError(
        f"{space} does not exist. Give a space file or a shipped one (available: {', '.join(sorted(shipped))})."
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
                f"{path}: unknown section {key!r} (available: {', '.join(_PARTS)}).{did_you_mean(str(key), _PARTS)}"
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
        if base.objective.kind == "none" and str(name).startswith("objective.") and "fixed" not in (given or {}):
            raise UserError(
                f"{where}: objective.kind is none, so weights change nothing. Search them with objective.kind: step."
            )
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
    """Check that a field exists and that a search may change it.

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


def _entry(where: str, name: str, given: Any) -> Entry:
    if not isinstance(given, dict):
        raise UserError(f"{where} is {given!r}, expected a mapping such as {{distribution: float, low: 0, high: 1}}.")
    for key in given:
        if key not in _KEYS:
            raise UserError(
                f"{where}: unknown key {key!r} (available: {', '.join(_KEYS)}).{did_you_mean(str(key), _KEYS)}"
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
        if isinstance(value, bool) or not number or not math.isfinite(value):  # type: ignore[arg-type]  # a number, by the line above
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

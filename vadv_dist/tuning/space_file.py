"""Read a space file, the search space and the settings of a search, and check it before anything starts.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vadv_dist.config import Config, load_config
from vadv_dist.config.hints import SPACE_PARTS, require_file_of
from vadv_dist.config.load import build, read_yaml, take_overrides
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.shape import tree, walk
from vadv_dist.config.shipped import find_shipped
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.runtime.job_storage import with_lasting
from vadv_dist.tuning.space import Entry, Space, Value, with_values

# What an entry can contain besides `condition`, by the kind of its distribution.
_KEYS = {
    "float": ("distribution", "low", "high", "step", "log", "zero"),
    "int": ("distribution", "low", "high", "step", "log"),
    "categorical": ("distribution", "choices"),
    "fixed": ("fixed",),
}
# These decide where a run is stored, what computes it, which clips evaluate it (trials could not be compared) and how
# long it is (rungs are counted in epochs of a single schedule).
_NOT_SEARCHED = ("run", "telemetry", "engine", "data.sources", "data.missing", "trainer")


def load_files(
    config_path: str | Path, space_path: str | Path, overrides: Sequence[str]
) -> tuple[Config, Space, SearchConfig]:
    """Load the configuration of a search's runs, the space, and the search's settings; needs no torch.

    Args:
        config_path: the configuration to vary.
        space_path: a space file, or the name of a shipped one.
        overrides: `--section.field=value` for either.
    Raises:
        UserError: a file or an override is invalid.
    """
    of_search, of_config = split_overrides(overrides)
    config = with_lasting(load_config(config_path, of_config), "run.storage")
    found = find_space(space_path)
    space, raw = load_space(found, config)
    return config, space, load_search(raw, of_search, str(found))


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate `--search.field=value` from overrides of the run's configuration."""
    taken, others = take_overrides(overrides)
    mine = [argument for argument in taken if argument.startswith("--search.")]
    return mine, [argument for argument in taken if argument not in mine] + others


@dataclass(frozen=True)
class _Settings:
    """Settings as a file and the command line name them: `search.<field>`."""

    search: SearchConfig


def load_search(raw: Mapping[str, Any], overrides: Sequence[str], where: str) -> SearchConfig:
    """Build the settings.

    Args:
        raw: the `search` part of a space file.
        overrides: `--search.field=value`, which take precedence.
        where: the file's name, for messages.
    Raises:
        UserError: an unknown setting (with the nearest name), or a value of the wrong type.
    """
    return build(_Settings, {"search": dict(raw)}, overrides, where).search


def find_space(space: str | Path) -> Path:
    """Return a space file, or the shipped one of that name.

    Raises:
        UserError: there is neither.
    """
    return find_shipped(space, "space", "tune_spaces", "tune_spaces")


def load_space(path: str | Path, base: Config) -> tuple[Space, dict[str, Any]]:
    """Read a space file and check it against the configuration that is varied.

    Returns:
        the space, and the file's `search` part, unchecked.
    Raises:
        UserError: not a space; an unknown field or key (with the nearest name); bounds that the configuration does not
            accept; a default outside the space.
    """
    raw = read_yaml(path)
    require_file_of("SpaceFile", raw, path)
    for key in raw:
        if key not in SPACE_PARTS:
            available = f"(available: {', '.join(SPACE_PARTS)})"
            raise UserError(f"{path}: unknown section {key!r} {available}.{did_you_mean(str(key), SPACE_PARTS)}")
    search, fields = raw.get("search") or {}, raw.get("space")
    if not isinstance(search, dict):
        raise UserError(f"{path}: `search` is {search!r}, expected settings such as `num_trials: 40`.")
    if not isinstance(fields, dict) or not fields:
        raise UserError(
            f"{path}: `space` names no fields. Write entries such as `objective.alpha: {{distribution: …}}`."
        )
    known = list(dict.fromkeys(name for name, _ in walk(tree(Config)) if "." in name))
    entries: list[Entry] = []
    for name, given in fields.items():
        where = f"{path}: {name}"
        _require_field(str(name), known, where)
        if base.objective.kind == "none" and str(name).startswith("objective.") and "fixed" not in (given or {}):
            raise UserError(
                f"{where}: objective.kind is none, so weights change nothing. Search them with objective.kind: step."
            )
        entry = _entry(where, str(name), given)
        below = list(fields)[len(entries) :]
        for other in entry.condition:
            if other not in known:
                raise UserError(f"{where}: its condition names the unknown field {other}.{did_you_mean(other, known)}")
            if other in below:
                raise UserError(f"{where}: its condition names {other}, which must be listed above it.")
        for value in entry.extremes:
            try:
                with_values(base, {entry.field: value})
            except UserError as error:
                raise UserError(f"{where}: the space reaches {value!r}, which the config refuses. {error}") from None
        entries.append(entry)
    space = Space(tuple(entries))
    if not space.searched:
        raise UserError(f"{path}: every field is fixed, so there is nothing to search. Give one a distribution.")
    default = space.default(base)
    for entry in space.searched:
        value = default[entry.field]
        if not entry.holds(value):
            whose = "the paper's weight" if entry.weight else "the config's value"
            advice = "fix objective.beta so that the paper's ratio fits" if entry.weight else "change the config"
            raise UserError(
                f"{path}: {entry.field}: {whose} {value!r} is always tried first, but lies outside the space. Widen "
                f"the space, or {advice}."
            )
    return replace(space, first=_first(raw.get("first"), space, default, path)), search


def _require_field(name: str, known: Sequence[str], where: str) -> None:
    """Check that a field exists and that a search may change it."""
    if name not in known:
        section = name.split(".", 1)[0]
        there = [n for n in known if n.startswith(f"{section}.")]
        listed = f" (fields there: {', '.join(there)})" if there else ""
        raise UserError(f"{where}: the config has no such field{listed}.{did_you_mean(name, known)}")
    for refused in _NOT_SEARCHED:
        if name == refused or name.startswith(f"{refused}."):
            raise UserError(
                f"{where}: {refused} cannot be searched, because trials that differ in it cannot be compared. Set it "
                "in the config file or override it."
            )


def _entry(where: str, name: str, given: Any) -> Entry:
    if not isinstance(given, dict):
        raise UserError(f"{where} is {given!r}, expected a mapping such as {{distribution: float, low: 0, high: 1}}.")
    kind: Any = "fixed" if "fixed" in given else given.get("distribution")
    if kind not in _KEYS:
        kinds = list(_KEYS)[:-1]
        raise UserError(
            f"{where}: distribution is {kind!r}, expected one of {', '.join(kinds)}, or `fixed: VALUE`."
            f"{did_you_mean(str(kind), kinds)}"
        )
    keys = (*_KEYS[kind], "condition")
    for key in given:
        if key not in keys:
            what = "`fixed`" if kind == "fixed" else f"`distribution: {kind}`"
            hint = did_you_mean(str(key), keys)
            raise UserError(f"{where}: unknown key {key!r} with {what} (available: {', '.join(keys)}).{hint}")
    condition = given.get("condition") or {}
    if not isinstance(condition, dict):
        raise UserError(f"{where}: condition is {condition!r}, expected fields and values: {{objective.step2: true}}.")
    condition = {str(field): tuple(v) if isinstance(v, list) else (v,) for field, v in condition.items()}
    if kind == "fixed":
        return Entry(name, kind, choices=(given["fixed"],), condition=condition)
    if kind == "categorical":
        choices = given.get("choices")
        if not isinstance(choices, list) or not choices:
            raise UserError(f"{where}: choices is {choices!r}, expected a list such as [A, B].")
        return Entry(name, kind, choices=tuple(choices), condition=condition)
    return replace(_number(where, name, given), condition=condition)


def _number(where: str, name: str, given: Mapping[str, Any]) -> Entry:
    kind = given["distribution"]
    for key in ("low", "high", *(key for key in ("step", "zero") if key in given)):
        value = given.get(key)
        number = isinstance(value, int | float if kind == "float" else int) and not isinstance(value, bool)
        if not number or not math.isfinite(value):  # type: ignore[arg-type]  # a number, by the line above
            # YAML reads 1e-6 as text.
            hint = " Numbers with an exponent need a decimal point in YAML: 1.0e-6." if isinstance(value, str) else ""
            raise UserError(
                f"{where}: {key} is {value!r}, expected {'a number' if kind == 'float' else 'an integer'}.{hint}"
            )
    low, high, log = given["low"], given["high"], given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{where}: log is {log!r}, expected true or false.")
    if not low < high:
        raise UserError(f"{where}: low {low} is not below high {high}. Use `fixed: {low}` for a single value.")
    if log and low <= 0:
        raise UserError(
            f"{where}: low is {low}, expected a positive number on a log axis. `zero: 0.1` adds zero to the axis."
        )
    step, zero = given.get("step"), given.get("zero", 0.0)
    if step is not None and (step <= 0 or log):
        raise UserError(f"{where}: step is {step}, expected a positive number, and not together with log.")
    if zero and not (0 < zero < 1 and log):
        raise UserError(f"{where}: zero is {zero}, expected a share between 0 and 1 of a log axis.")
    return Entry(name, kind, float(low), float(high), step, log, float(zero))


def _first(
    given: Any, space: Space, default: Mapping[str, Value], path: str | Path
) -> tuple[dict[str, Value], ...]:  # fmt: skip
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
    return tuple({**default, **values} for values in given)

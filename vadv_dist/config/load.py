"""Load a configuration from YAML and the command line, with located error messages."""

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError

from vadv_dist.config.overrides import take_overrides
from vadv_dist.config.recipes import config_path
from vadv_dist.config.sections import Config
from vadv_dist.config.shape import alternatives, chosen, describe, field_types, kinds_of
from vadv_dist.config.yaml_text import MAX_BYTES, parse_yaml
from vadv_dist.errors import UserError, did_you_mean

T = TypeVar("T")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Build a run's configuration from a YAML file and `--section.field=value` overrides.

    Args:
        path: the YAML file, or the name of a recipe; None uses the defaults.
        overrides: arguments of the command line.
    Raises:
        UserError: no such file, not YAML, an unknown field (with the closest name), or a value of the wrong type.
    """
    return load_sections(Config, path, overrides)


def load_sections(kind: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Build a configuration of any kind; see `load_config`.

    Args:
        kind: a dataclass whose fields are sections, each a dataclass.
    """
    path = None if path is None else config_path(path)
    overrides, others = take_overrides(overrides)
    if others:
        raise UserError(
            f"Unknown argument {others[0]!r}. Fields are overridden with --section.field=VALUE, "
            "for example --trainer.epochs=3."
        )
    raw = read_yaml(path) if path is not None else {}
    return build(kind, raw, overrides, "the command line" if path is None else str(path))


def build(kind: Callable[..., T], raw: Mapping[str, Any], overrides: Sequence[str], where: str) -> T:
    """Build a configuration from plain containers and overrides.

    Args:
        kind: its dataclass.
        raw: sections by name; not modified.
        overrides: `--section.field=value`, which take precedence.
        where: what `raw` was read from, for messages.
    Raises:
        UserError: an unknown field, a field of another kind of its section, or a value of the wrong type.
    """
    texts: dict[str, tuple[str, str]] = {}  # overridden field -> (argument, text of the value)
    given = copy.deepcopy(dict(raw))
    for argument in overrides:
        name, _, text = argument.removeprefix("--").partition("=")
        set_field(given, kind, name, text, argument.partition("=")[0], is_text=True)
        texts[name] = (argument, text)
    shaped = _shaped(given, kind, lambda name: texts[name][0] if name in texts else where, "")
    try:
        built: T = _adapter(kind).validate_json(json.dumps(shaped, default=str), strict=True)
    except ValidationError as error:
        raise _refusal(error, kind, shaped, texts, where) from None
    return built


def set_field(raw: dict[str, Any], kind: Any, name: str, value: Any, where: str, *, is_text: bool = False) -> None:
    """Set a dotted field in plain containers.

    If this changes the kind of a section, fields that the new kind lacks are dropped.

    Args:
        raw: sections by name; modified in place.
        kind: the configuration's dataclass.
        name: dotted name.
        value: the new value.
        where: where the value comes from, for messages.
        is_text: whether the value is text from the command line, to be parsed as the field's type.
    Raises:
        UserError: there is no such field.
    """
    declared: Any = kind
    place, parts = raw, name.split(".")
    for depth, part in enumerate(parts):
        prefix = ".".join(parts[:depth])
        section = chosen(declared, place)
        if section is None:
            return  # an unknown kind, which is reported when the configuration is built
        if part not in field_types(section):
            raise _unknown(part, prefix, declared, section, where)
        declared = field_types(section)[part]
        if depth < len(parts) - 1:
            if not kinds_of(declared):
                raise UserError(f"{where}: {prefix}.{part} is not a section, so it has no fields.".replace(": .", ": "))
            inner = place.get(part)
            place[part] = inner if isinstance(inner, dict) else {"kind": inner} if isinstance(inner, str) else {}
            place = place[part]
    last = parts[-1]
    place[last] = _from_text(value, declared) if is_text else value
    if last == "kind" and (section := chosen(_declared(kind, parts[:-1], raw), place)) is not None:
        for field in set(place) - set(field_types(section)):
            del place[field]


def config_from_dict(raw: Mapping[str, Any]) -> Config:
    """Build a configuration from the result of `config_to_dict`.

    Raises:
        UserError: it is not a valid configuration of this version.
    """
    return build(Config, raw, (), "the configuration")


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain containers."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def config_to_yaml(config: Any) -> str:
    """Return a configuration as YAML with every field."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Replace tuples by lists, for YAML and JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: no such file, not YAML, or something other than a mapping.
    """
    try:
        with Path(path).open("rb") as file:
            raw = parse_yaml(file.read(MAX_BYTES + 1).decode(), path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Give a YAML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{path} contains a {type(raw).__name__}, expected sections such as `run:` and `data:`.")
    return raw


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """List the fields in which two configurations differ, with both values."""
    rows = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        name = f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            rows += differing_keys(a, b, f"{name}.")
        elif a != b:
            rows.append(f"{name}: {a!r} there, {b!r} now")
    return rows


@cache  # a search builds a configuration for every trial
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _shaped(raw: Any, declared: Any, place_of: Callable[[str], str], prefix: str) -> Any:
    """Normalise a section: set its kind, drop empty sections, and parse numbers that YAML reads as text.

    Raises:
        UserError: an unknown field or kind.
    """
    if isinstance(raw, str) and "" not in kinds_of(declared):
        raw = {"kind": raw}
    name = prefix.rstrip(".")
    if not isinstance(raw, dict):
        raise UserError(f"{place_of(name)}: {name} is {raw!r}, expected {describe(declared)}.")
    section = chosen(declared, raw)
    if section is None:
        kinds = kinds_of(declared)
        hint = did_you_mean(str(raw["kind"]), kinds)
        place = place_of(f"{prefix}kind") if place_of(name) == place_of("") else place_of(name)
        raise UserError(f"{place}: {prefix}kind is {raw['kind']!r}, expected {_kinds(declared)}.{hint}")
    shaped: dict[str, Any] = {}
    for key, value in raw.items():
        types = field_types(section)
        if key not in types:
            raise _unknown(str(key), name, declared, section, place_of(f"{prefix}{key}"))
        if kinds_of(types[key]):
            if value is not None:
                shaped[key] = _shaped(value, types[key], place_of, f"{prefix}{key}.")
        else:
            shaped[key] = _number(value, types[key])
    if "" not in kinds_of(declared):
        shaped.setdefault("kind", get_args(field_types(section)["kind"])[0])
    return shaped


def _unknown(key: str, prefix: str, declared: Any, section: type, where: str) -> UserError:
    """The error for a field that a section does not have."""
    name = f"{prefix}.{key}" if prefix else key
    others = [kind for kind, member in kinds_of(declared).items() if key in field_types(member)]
    if others:
        kind = get_args(field_types(section)["kind"])[0]
        return UserError(
            f"{where}: {name} requires {prefix}.kind to be {' or '.join(map(repr, others))}, but it is {kind!r}. "
            "Remove the field, or change the kind."
        )
    known = list(field_types(section))
    if not prefix:
        return UserError(f"{where}: unknown section {key!r} (sections: {', '.join(known)}).{did_you_mean(key, known)}")
    return UserError(
        f"{where}: unknown field {name} in section {prefix!r} (fields there: {', '.join(known)})."
        f"{did_you_mean(key, known)}"
    )


def _kinds(declared: Any) -> str:
    kinds = [repr(kind) for kind in kinds_of(declared)]
    return ", ".join(kinds[:-1]) + (" or " if len(kinds) > 1 else "") + kinds[-1]


def _declared(kind: Any, parts: Sequence[str], raw: Any) -> Any:
    """The declared type of the section at a dotted name."""
    declared = kind
    for part in parts:
        section = chosen(declared, raw) or kind
        declared, raw = field_types(section)[part], raw.get(part, {}) if isinstance(raw, dict) else {}
    return declared


def _from_text(text: str, declared: Any) -> Any:
    """Parse a value from the command line as its field's type."""
    members = alternatives(declared)
    if text == "null" and type(None) in members:
        return None
    if str in members or (kinds_of(declared) and not text.startswith("{")):
        return text
    try:
        return _number(parse_yaml(text, "the argument"), declared)
    except UserError:
        return text


def _number(value: Any, declared: Any) -> Any:
    """Parse a number that YAML reads as text, such as `1e-6`, if the field expects a number."""
    members = alternatives(declared)
    if isinstance(value, str) and float in members and str not in members:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _refusal(
    error: ValidationError, kind: Any, shaped: Any, texts: Mapping[str, tuple[str, str]], where: str
) -> UserError:
    """Turn pydantic's first error into a message: where, which field, its value, what was expected."""
    found = error.errors(include_url=False)[0]
    names: list[str] = []
    value, declared = shaped, kind
    for step in found["loc"]:  # the keys include names of union members
        if isinstance(value, dict) and step in value:
            section = chosen(declared, value) if kinds_of(declared) else None
            value, declared = value[step], field_types(section).get(str(step)) if section else declared
            names.append(str(step))
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            item = get_args(declared)
            value, declared = value[step], item[0] if get_origin(declared) is list else declared
            names[-1] += f"[{step}]"
    name = ".".join(names)
    argument = texts.get(name.partition("[")[0])
    place, shown = (argument[0], argument[1]) if argument is not None else (where, value)
    if found["type"] in ("missing", "missing_argument"):
        return UserError(f"{place}: {name}.{found['loc'][-1]} is missing.")
    if found["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = list(field_types(kinds_of(declared)[""]))
        key = str(found["loc"][-1])
        name = name.removesuffix(f".{key}")
        return UserError(
            f"{place}: unknown field {key} in {name} (fields there: {', '.join(known)}).{did_you_mean(key, known)}"
        )
    return UserError(f"{place}: {name} is {shown!r}, expected {describe(declared)}.")

"""Read a run's configuration from YAML and the command line, and say clearly what is wrong with it."""

import dataclasses
import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser

from vadv_dist.config.overrides import take_overrides
from vadv_dist.config.sections import Config
from vadv_dist.config.wrong_types import refusal
from vadv_dist.config.yaml_text import MAX_BYTES, parse_yaml
from vadv_dist.errors import UserError, did_you_mean

T = TypeVar("T")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Build a run's configuration from a YAML file and `--section.field=value` overrides.

    Raises:
        UserError: no such file, not YAML, an unknown field (with the nearest name), or a value of the wrong type.
    """
    return load_sections(Config, path, overrides)


def load_sections(kind: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Build a configuration from a YAML file and `--section.field=value` overrides.

    Args:
        kind: a dataclass whose fields are sections, each a dataclass.
        path: the YAML file; None takes the defaults.
        overrides: arguments of the command line.
    Raises:
        UserError: no such file, not YAML, an unknown field (with the nearest name), or a value of the wrong type.
    """
    raw = read_yaml(path) if path is not None else {}
    where = str(path) if path is not None else "the command line"
    _refuse_unknown(raw, kind, where, prefix="")
    overrides, others = take_overrides(overrides)
    if others:
        raise UserError(
            f"Unknown argument {others[0]!r}. Fields are overridden as --section.field=value, "
            "for example --trainer.epochs=3."
        )
    for argument in overrides:
        _refuse_unknown_override(argument.split("=", 1)[0][2:], kind)
    parser = _parser(kind)  # type: ignore[arg-type]  # classes are hashable
    try:
        with redirect_stderr(io.StringIO()):
            parsed = parser.parse_object(_without_none_sections(raw)) if raw else parser.get_defaults()
            if overrides:
                parsed = parser.parse_args(list(overrides), namespace=parsed)
            sections = parser.instantiate(parsed)
            return _build(kind, sections)
    except UserError:
        raise
    except Exception as error:
        raise refusal(error, kind, overrides, where) from None


def config_from_dict(raw: dict[str, Any]) -> Config:
    """Build a configuration from what `config_to_dict` gave."""
    parser = _parser(Config)
    return _build(Config, parser.instantiate(parser.parse_object(raw)))


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain containers."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(config))
    return plain


def config_to_yaml(config: Any) -> str:
    """Return a configuration as YAML, every field written out."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what YAML and JSON hold."""
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
        raise UserError(f"{path} does not exist. Give a config file; `vadv recipes` lists the shipped ones.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{path} holds a {type(raw).__name__}, expected sections such as `run:` and `data:`.")
    return raw


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two configurations differ, with both values."""
    rows = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        name = f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            rows += differing_keys(a, b, f"{name}.")
        elif a != b:
            rows.append(f"{name}: {a!r} there, {b!r} now")
    return rows


@cache  # a search builds a configuration for every trial, and a parser takes half of that time
def _parser(kind: type[Any]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_class_arguments(kind)
    return parser


def _build(kind: type[T], sections: Any) -> T:
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: getattr(sections, name) for name in names})


def _without_none_sections(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value is not None}


def _refuse_unknown(raw: dict[str, Any], kind: Any, where: str, prefix: str) -> None:
    known = {f.name: f.type for f in dataclasses.fields(kind)}
    for key, value in raw.items():
        if key not in known:
            place = f"in section {prefix.rstrip('.')!r} " if prefix else ""
            raise UserError(
                f"{where}: unknown field {prefix}{key} {place}"
                f"(fields there: {', '.join(known)}).{did_you_mean(str(key), known)}"
            )
        if dataclasses.is_dataclass(known[key]):
            if value is not None and not isinstance(value, dict):
                raise UserError(f"{where}: {prefix}{key} is {value!r}, expected a section with fields of its own.")
            _refuse_unknown(value or {}, known[key], where, f"{prefix}{key}.")


def _refuse_unknown_override(name: str, kind: Any) -> None:
    section, _, rest = name.partition(".")
    sections: dict[str, Any] = {f.name: f.type for f in dataclasses.fields(kind)}
    if section not in sections:
        raise UserError(
            f"--{name}: unknown section {section!r} (sections: {', '.join(sections)}).{did_you_mean(section, sections)}"
        )
    fields = [f.name for f in dataclasses.fields(sections[section])]
    field_name = rest.rstrip("+")
    if field_name not in fields:
        raise UserError(
            f"--{name}: unknown field {rest!r} in section {section!r} (fields there: {', '.join(fields)})."
            f"{did_you_mean(rest, fields)}"
        )

"""Load a configuration from YAML and the command line, with located error messages."""

import copy
import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from vadv_dist.config.hints import require_file_of, unknown_argument
from vadv_dist.config.recipes import config_path, is_recipe
from vadv_dist.config.sections import Config
from vadv_dist.config.shape import Node, adapter, describe, either, fields_of, kinds_of, tree, values_of
from vadv_dist.config.yaml_text import MAX_BYTES, parse_yaml
from vadv_dist.errors import UserError, did_you_mean, similar_file

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


def names_run(path: str | Path, overrides: Sequence[str]) -> bool:
    """Whether a user named the run: with `--run.name`, or in a file of their own, which a recipe is not."""
    if any(override.startswith("--run.name=") for override in overrides):
        return True
    path = config_path(path)
    return not is_recipe(path) and "name" in (read_yaml(path).get("run") or {})


def load_sections(kind: type[T], path: str | Path | None, overrides: Sequence[str] = ()) -> T:
    """Build a configuration of any kind; see `load_config`.

    Args:
        kind: a dataclass whose fields are sections, each a dataclass.
    """
    given, path = path, None if path is None else config_path(path)
    overrides, others = take_overrides(overrides)
    if others:
        raise unknown_argument(others[0], kind)
    raw = read_yaml(path) if path is not None else {}
    require_file_of(kind.__name__, raw, given)
    return build(kind, raw, overrides, "the command line" if path is None else str(path))


def take_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the arguments that set fields, `--section.field=VALUE` or `--section.field VALUE`, from all others.

    The argument after `--section.field` is its value unless it starts with `--`; a value that does needs the form with
    `=`.

    Returns:
        the overrides as `--section.field=VALUE`, and the other arguments, both in order.
    Raises:
        UserError: a field without a value.
    """
    overrides, others = [], []
    left = list(reversed(arguments))
    while left:
        argument = left.pop()
        name, has_value, _ = argument.partition("=")
        if not name.startswith("--") or "." not in name:
            others.append(argument)
        elif has_value:
            overrides.append(argument)
        elif not left or left[-1].startswith("--"):
            raise UserError(f"{name} has no value. Write {name}=VALUE or {name} VALUE.")
        else:
            overrides.append(f"{name}={left.pop()}")
    return overrides, others


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
    # A section without content has its defaults, unless null means that it is left out.
    optional = {name for name, node in fields_of(tree(kind), {}).items() if {"type": "null"} in node.get("anyOf", ())}
    given = {name: copy.deepcopy(section) for name, section in raw.items() if section is not None or name in optional}
    arguments: dict[str, str] = {}  # by the field that they override
    for argument in overrides:
        name, _, text = argument.removeprefix("--").partition("=")
        set_field(given, kind, name, text, is_text=True)
        arguments[name] = argument
    try:
        # As JSON, which is strict about types but has lists for tuples.
        built: T = adapter(kind).validate_json(to_json(given, fallback=str, bytes_mode="base64"), strict=True)
    except PydanticSerializationError as error:  # text that is not valid Unicode
        raise UserError(f"{where}: {error}.") from None
    except ValidationError as error:
        raise _refusal(error, kind, arguments, where) from None
    return built


def set_field(raw: dict[str, Any], kind: Any, name: str, value: Any, *, is_text: bool = False) -> None:
    """Set a dotted field in plain containers.

    If this changes the kind of a section, fields that the new kind lacks are dropped.

    Args:
        raw: sections by name; modified in place.
        kind: the configuration's dataclass.
        name: dotted name; an unknown one is reported when the configuration is built.
        value: the new value.
        is_text: whether the value is text from the command line, to be parsed as the field's type.
    """
    node, place = tree(kind), raw
    *sections, last = name.split(".")
    for part in sections:
        node, inner = fields_of(node, place).get(part, {}), place.get(part)
        place[part] = inner if isinstance(inner, dict) else {"kind": inner} if isinstance(inner, str) else {}
        place = place[part]
    place[last] = _from_text(value, fields_of(node, place).get(last, {})) if is_text else value
    if last == "kind" and (known := fields_of(node, place)):
        for field in set(place) - set(known):
            del place[field]


def _from_text(text: str, node: Node) -> Any:
    """Parse a value from the command line as its field's type."""
    types = {member.get("type") for member in node.get("anyOf", [node]) if not {"const", "enum"} & set(member)}
    if text == "null" and "null" in types:
        return None
    if "string" in types:
        return text
    try:
        return parse_yaml(text, "the argument")
    except UserError:
        return text


def config_from_dict(raw: Mapping[str, Any]) -> Config:
    """Build a configuration from the result of `config_to_dict`.

    Raises:
        UserError: it is not a valid configuration of this version.
    """
    return build(Config, raw, (), "the configuration")


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as plain containers."""
    plain: dict[str, Any] = to_jsonable_python(config)
    return plain


def config_to_yaml(config: Any) -> str:
    """Return a configuration as YAML with every field."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: no such file, not YAML, or something other than a mapping.
    """
    try:
        with Path(path).open("rb") as file:
            raw = parse_yaml(file.read(MAX_BYTES + 1).decode(), path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.{similar_file(Path(path))} Give a YAML file.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder. Give a YAML file, such as one of those in it.") from None
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


def _refusal(error: ValidationError, kind: Any, arguments: Mapping[str, str], where: str) -> UserError:
    """Turn pydantic's first error into a message: where, which field, its value, what was expected."""
    found = error.errors(include_url=False)[0]
    facts, value, hint = found.get("ctx", {}), repr(found["input"]), ""
    node = section = tree(kind)
    name = ""
    for step in found["loc"]:  # fields, numbers of list items, kinds of sections, and members of unions
        if "oneOf" in node and step in kinds_of(node):
            section, node = node, kinds_of(node)[str(step)]
        elif step in (fields := fields_of(node)):
            name = f"{name}.{step}".lstrip(".")
            section = node = fields[str(step)]
        elif values := values_of(node):
            name, node = f"{name}.{step}", values
            section = node
        elif isinstance(step, int) and node.get("type") == "array":
            name, node = f"{name}[{step}]", node["prefixItems"][step] if "prefixItems" in node else node["items"]
        else:
            break
    expected = describe(node)
    match found["type"]:
        case "unexpected_keyword_argument":
            return _unknown(str(found["loc"][-1]), name, section, node, arguments, where)
        case "missing":
            return UserError(f"{_place(name, arguments, where)}: {name} is missing.")
        case "value_error":  # of a place that cannot be expanded
            return UserError(f"{_place(name, arguments, where)}: {name} is {value}, but {facts['error']}.")
        case "finite_number":
            expected = "a finite number"
        case "list_type" if isinstance(found["input"], str) and "uri" in fields_of(node.get("items", {})):
            hint = f" Write --{name}='[{{uri: {found['input']}}}]'."
        case "union_tag_invalid":
            name, value, expected = f"{name}.kind", repr(facts["tag"]), either(kinds_of(node))
            hint = did_you_mean(facts["tag"], kinds_of(node))
        case "rule":
            name, value, expected = f"{name}.{facts['field']}".lstrip("."), facts["value"], facts["expected"]
    return UserError(f"{_place(name, arguments, where)}: {name} is {value}, expected {expected}.{hint}")


def _unknown(key: str, name: str, section: Node, member: Node, arguments: Mapping[str, str], where: str) -> UserError:
    """The error for a field that a section, or the selected kind of it, does not have."""
    known = list(fields_of(member))
    names = {field: f"--{field}" for field in arguments}  # without the value, which may be a password
    place = _place(f"{name}.{key}".lstrip("."), names, where)
    if others := [kind for kind, fields in kinds_of(section).items() if key in fields["properties"]]:
        return UserError(
            f"{place}: {name}.{key} requires {name}.kind to be {either(others)}, but it is "
            f"{member['properties']['kind']['const']!r}. Remove the field, or change the kind."
        )
    if not name:
        return UserError(f"{place}: unknown section {key!r} (sections: {', '.join(known)}).{did_you_mean(key, known)}")
    kinds = kinds_of(section)
    kind = "" if "" in kinds else f" of kind {member['properties']['kind']['const']}"
    hint = did_you_mean(key, known) or _of_other_kinds(key, name, kinds)
    return UserError(f"{place}: unknown field {name}.{key} (fields of {name}{kind}: {', '.join(known)}).{hint}")


def _of_other_kinds(key: str, name: str, kinds: Mapping[str, Node]) -> str:
    """Name the field of other kinds that a name is closest to, as a sentence, or return an empty string."""
    others = list(dict.fromkeys(field for member in kinds.values() for field in member["properties"]))
    near = difflib.get_close_matches(key, others, n=1)
    having = [kind for kind, member in kinds.items() if near and near[0] in member["properties"]]
    return f" {name}.{near[0]} exists if {name}.kind is {either(having)}." if having else ""


def _place(name: str, arguments: Mapping[str, str], where: str) -> str:
    """The argument that sets a field, a part of it or the section around it; otherwise the file."""
    for field, argument in arguments.items():
        if field == name or field.startswith(f"{name}.") or name.startswith((f"{field}.", f"{field}[")):
            return argument
    return where

"""The configuration reference, from the sections' docstrings: help, JSON Schemas, and docs/configuration.md.

`python -m vadv_dist.config.reference` writes the page, and the schemas next to the recipes (`make docs`).
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Any, get_args

from pydantic import TypeAdapter

from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.sections import Config
from vadv_dist.config.shape import describe, field_types, kinds_of

# The values of `vadv config schema --kind`.
KINDS = {"run": Config, "extract": ExtractConfig, "search": SearchConfig}
_ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a section.

    Attributes:
        name: dotted name.
        type: its type in words.
        default: as YAML; empty if it has none.
        text: its description.
        kind: the only kind of its section that has it; empty if all have it.
    """

    name: str
    type: str
    default: str
    text: str
    kind: str = ""


@cache
def texts_of(section: type) -> dict[str, str]:
    """Descriptions of a dataclass's fields, from the `Args:` of its docstring."""
    found: dict[str, str] = {}
    lines = inspect.cleandoc(section.__doc__ or "").partition("Args:\n")[2].splitlines()
    names: list[str] = []
    for line in lines:
        if not line.startswith("    "):
            break
        match = _ARGUMENT.match(line[4:])
        if match:
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def summary(section: type) -> str:
    """The first sentence of a dataclass's docstring."""
    return inspect.cleandoc(section.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def fields_of(declared: Any, prefix: str = "") -> Iterator[Field]:
    """The fields of a section and of its nested sections; fields that all kinds share appear once."""
    kinds = kinds_of(declared)
    shared = set.intersection(*(set(field_types(member)) for member in kinds.values()))
    seen: set[str] = set()
    for kind, member in kinds.items():
        defaults = {field.name: _default(field) for field in dataclasses.fields(member)}
        for name, inner in field_types(member).items():
            if name in seen:
                continue
            seen |= {name} & shared
            only = "" if name in shared else kind
            if name == "kind" and "" not in kinds:
                names = [repr(each) for each in kinds]
                text = "; ".join(f"`{each}`: {summary(cls)}" for each, cls in kinds.items())
                yield Field(f"{prefix}kind", " or ".join(names), next(iter(kinds)), text)
            elif kinds_of(inner):
                yield from fields_of(inner, f"{prefix}{name}.")
            else:
                text = texts_of(member).get(name, "")
                yield Field(f"{prefix}{name}", describe(inner), defaults[name], text, only)


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration, with descriptions of the fields."""
    schema: dict[str, Any] = TypeAdapter(kind).json_schema()
    described = {section.__name__: section for section in _sections(kind)}
    for definition in (schema, *schema.get("$defs", {}).values()):
        section = described.get(definition.get("title", ""))
        if section is None:
            continue
        definition["description"] = summary(section)
        for name, entry in definition.get("properties", {}).items():
            if text := texts_of(section).get(name):
                entry["description"] = text
            if "discriminator" in entry:  # the name of a kind is accepted too
                choices = entry.pop("oneOf")
                kinds = list(entry.pop("discriminator")["mapping"])
                entry["anyOf"] = [*choices, {"enum": kinds}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def help_text(kind: type, section: str = "") -> str:
    """Every field with its default and its first sentence, grouped by section.

    Args:
        kind: a configuration, or a single section.
        section: the name of a single section, followed by a dot.
    """
    lines = ["fields, set with --section.field=VALUE (described in docs/configuration.md):"]
    sections = {section: kind} if section else {f"{name}.": of for name, of in field_types(kind).items()}
    for prefix, declared in sections.items():
        first = next(iter(kinds_of(declared).values()))
        lines += [
            "",
            *wrap(f"{prefix.rstrip('.')}: {summary(first)}", 79, initial_indent="  ", subsequent_indent="    "),
        ]
        for field in fields_of(declared, prefix):
            only = f" [{field.kind}]" if field.kind else ""
            lines.append(f"    --{field.name}={field.default}{only}")
            lines += wrap(_first_sentence(field.text), 79, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def markdown() -> str:
    """docs/configuration.md."""
    parts = [
        "# Configuration",
        "Every field of a run (`vadv train`, `vadv tune`, `vadv doctor`), of an extraction (`vadv extract`), and of "
        "the `search` section of a space file. A config file is YAML with one mapping per section. To override a field "
        "on the command line, use `--section.field=VALUE` or `--section.field VALUE`. `--config` accepts a file or the "
        "name of a recipe (`vadv recipes`). `~` and `$NAME` are expanded in paths and URIs. `vadv config schema` "
        "prints a JSON Schema for editors.",
        "A section with a `kind` has only the fields of that kind. A kind's name alone selects it with its defaults "
        "(`objective: {weighting: famo}`). If the command line changes the kind, fields in the file that the new kind "
        "lacks are dropped.",
        "This page is generated from the docstrings of `vadv_dist/config` by `make docs`.",
    ]
    for title, kind in (("Run", Config), ("Extraction", ExtractConfig)):
        parts.append(f"## {title}")
        for name, declared in field_types(kind).items():
            parts += [f"### `{name}`", *_section(declared, f"{name}.")]
    parts += ["## Search", *_section(SearchConfig, "search.")]
    return "\n\n".join(parts) + "\n"


def _section(declared: Any, prefix: str) -> Iterator[str]:
    yield summary(next(iter(kinds_of(declared).values())))
    rows = ["| Field | Default | Expected | Meaning |", "|---|---|---|---|"]
    for field in fields_of(declared, prefix):
        only = f" Only with `{prefix}kind: {field.kind}`." if field.kind else ""
        default = f"`{field.default}`" if field.default else "required"
        cells = (f"`{field.name}`", default, field.type, field.text + only)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    yield "\n".join(rows)


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return ""
    else:
        value = field.default
    return json.dumps(value, default=lambda inner: getattr(inner, "kind", None)).strip('"')


def _first_sentence(text: str) -> str:
    return re.split(r"(?<!\beq)\. (?=[A-Z`])|; ", text, maxsplit=1)[0].rstrip(".")


def _sections(declared: Any) -> Iterator[type]:
    for member in kinds_of(declared).values():
        yield member
        for inner in field_types(member).values():
            yield from _sections(inner)
            for item in get_args(inner):
                yield from kinds_of(item).values()


def write(root: Path) -> None:
    """Write the page, and the schemas next to the recipes, into a checkout."""
    (root / "docs" / "configuration.md").write_text(markdown(), encoding="utf-8")
    for name, kind in (("run", Config), ("extract", ExtractConfig)):
        text = json.dumps(json_schema(kind), indent=1, ensure_ascii=False) + "\n"
        (root / "jobs" / "configs" / f"schema-{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[2])

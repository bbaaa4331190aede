"""The configuration reference, from the sections' docstrings: help, JSON Schemas, and docs/configuration.md.

`python -m vadv_dist.config.reference` writes the page, and the schemas next to the recipes (`make docs`).
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from vadv_dist.config.extract_sections import ExtractConfig
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.sections import Config
from vadv_dist.config.shape import NAME, Node, adapter, describe, either, fields_of, kinds_of, tree, values_of
from vadv_dist.config.study import StudyConfig
from vadv_dist.config.workflow import WorkflowConfig

# The values of `vadv config schema --kind`.
KINDS = {
    "run": Config,
    "extract": ExtractConfig,
    "search": SearchConfig,
    "study": StudyConfig,
    "workflow": WorkflowConfig,
}


@dataclass(frozen=True)
class Field:
    """A field of a section.

    Attributes:
        name: dotted name.
        type: its type in words.
        default: as YAML; empty if it has none.
        text: its description.
        kinds: the kinds of its section that have it, or with `but` those that lack it; empty if all have it.
    """

    name: str
    type: str
    default: str
    text: str
    kinds: tuple[str, ...] = ()
    but: bool = False


def summary(node: Node) -> str:
    """The description of a section (of the default kind), or of a field, on one line."""
    return " ".join(next(iter(kinds_of(node).values()), node).get("description", "").split())


def list_fields(node: Node, prefix: str = "") -> Iterator[Field]:
    """The fields of a section and of its nested sections; a field that several kinds have in common appears once."""
    kinds = kinds_of(node)
    # By name, the field's variants, each with the kinds that have it.
    found: dict[str, dict[str, list[str]]] = {}
    variants: dict[str, tuple[Node, bool]] = {}
    for kind, member in kinds.items():
        for name, field in member["properties"].items():
            is_kind = name == "kind" and kind
            variant = name if is_kind else json.dumps([name, field, name in member.get("required", [])])
            variants[variant] = field, name in member.get("required", [])
            found.setdefault(name, {}).setdefault(variant, []).append(kind)
    for name, of_name in found.items():
        for variant, having in of_name.items():
            field, is_required = variants[variant]
            if variant == "kind":
                text = "; ".join(f"`{each}`: {summary(section).rstrip('.')}" for each, section in kinds.items())
                yield Field(f"{prefix}kind", either(kinds), next(iter(kinds)), text)
            elif kinds_of(field):
                yield from list_fields(field, f"{prefix}{name}.")
            else:
                empty: list[Any] | dict[str, Any] = {} if field.get("type") == "object" else []
                default = "" if is_required else json.dumps(field.get("default", empty)).strip('"')
                lacking = [kind for kind in kinds if kind not in having]
                but = len(lacking) < len(having)
                only = tuple(lacking if but else having)
                yield Field(f"{prefix}{name}", describe(field), default, summary(field), only, but)
                if kinds_of(values := values_of(field)):
                    yield from list_fields(values, f"{prefix}{name}.{NAME}.")


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration, with descriptions of the fields."""
    schema = copy.deepcopy(adapter(kind).json_schema())
    for definition in (schema, *schema.get("$defs", {}).values()):
        fields = definition.get("properties", {}).values()
        for field in (*fields, *map(values_of, fields)):
            if "discriminator" in field:  # the name of a kind is accepted too
                kinds = list(field.pop("discriminator")["mapping"])
                field["anyOf"] = [*field.pop("oneOf"), {"enum": kinds}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def help_text(kind: type, section: str = "") -> str:
    """Every field with its default and its first sentence, grouped by section.

    Args:
        kind: a configuration, or a single section.
        section: the name of a single section.
    """
    lines = ["fields, set with --section.field=VALUE (described in docs/configuration.md):"]
    for name, node in ({section: tree(kind)} if section else fields_of(tree(kind))).items():
        lines += ["", *wrap(f"{name}: {summary(node)}", 79, initial_indent="  ", subsequent_indent="    ")]
        for field in list_fields(node, f"{name}."):
            only = f" [{'all but ' if field.but else ''}{', '.join(field.kinds)}]" if field.kinds else ""
            lines += wrap(
                f"--{field.name}={field.default}{only}", 79, initial_indent=" " * 4, subsequent_indent=" " * 8
            )
            sentence = re.split(r"(?<!\beq)\. (?=[A-Z`])|; ", field.text, maxsplit=1)[0].rstrip(".")
            lines += wrap(sentence, 79, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def markdown() -> str:
    """docs/configuration.md."""
    parts = [
        "# Configuration",
        "Every field of a run (`vadv train`, `vadv tune`, `vadv doctor`), of an extraction (`vadv extract`), of the "
        "`search` section of a space file, of a study file (`vadv study`), and of a workflow file (`vadv workflow`). A "
        "config file is YAML with one mapping "
        "per section. To override a field on the command line, use `--section.field=VALUE` or `--section.field VALUE`. "
        "`--config` accepts a file or the name of a recipe (`vadv recipes`). `~` and `$NAME` are expanded in paths and "
        "URIs. `vadv config schema` prints a JSON Schema for editors.",
        "A section with a `kind` has only the fields of that kind. A kind's name alone selects it with its defaults "
        "(`objective: {weighting: famo}`). If the command line changes the kind, fields in the file that the new kind "
        "lacks are dropped.",
        "This page is generated from the docstrings of `vadv_dist/config` by `make docs`.",
    ]
    for title, kind in (("Run", Config), ("Extraction", ExtractConfig)):
        parts.append(f"## {title}")
        for name, node in fields_of(tree(kind)).items():
            parts += [f"### `{name}`", *_section(node, f"{name}.")]
    parts += ["## Search", *_section(tree(SearchConfig), "search.")]
    parts += ["## Study", *_section(tree(StudyConfig), "")]
    parts += ["## Workflow", *_section(tree(WorkflowConfig), "")]
    return "\n\n".join(parts) + "\n"


def _section(node: Node, prefix: str) -> Iterator[str]:
    yield summary(node)
    rows = ["| Field | Default | Expected | Meaning |", "|---|---|---|---|"]
    for field in list_fields(node, prefix):
        section = field.name.rpartition(".")[0]
        only = (
            f" {'Not' if field.but else 'Only'} with `{section}.kind: {'`, `'.join(field.kinds)}`."
            if field.kinds
            else ""
        )
        default = f"`{field.default}`" if field.default else "required"
        cells = (f"`{field.name}`", default, field.type, field.text + only)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    yield "\n".join(rows)


def write(root: Path) -> None:
    """Write the page, and the schemas next to the recipes, into a checkout."""
    (root / "docs" / "configuration.md").write_text(markdown(), encoding="utf-8")
    for name, folder in (("run", "configs"), ("extract", "configs"), ("study", "studies"), ("workflow", "workflows")):
        text = json.dumps(json_schema(KINDS[name]), indent=1, ensure_ascii=False) + "\n"
        (root / "jobs" / folder / f"schema-{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[2])

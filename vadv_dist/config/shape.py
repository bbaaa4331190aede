"""The structure of a configuration, read from its JSON Schema: sections, fields, and the kinds of a section."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter

Node = dict[str, Any]  # the schema of a section or of a field
_WORDS = {"integer": "an integer", "number": "a number", "boolean": "true or false", "string": "a text", "null": "null"}
NAME = "NAME"  # stands for a key of a mapping in the name of a field
_BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "of at least",
    "exclusiveMaximum": "below",
    "maximum": "up to",
}


@cache  # a search builds a configuration for every trial
def adapter(kind: Any) -> TypeAdapter[Any]:
    """pydantic's validator of a configuration."""
    return TypeAdapter(kind)


@cache
def tree(kind: Any) -> Node:
    """The JSON Schema of a configuration, with references replaced by what they refer to."""
    schema = adapter(kind).json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(item) for item in node]
        if not isinstance(node, dict):
            return node
        own = {key: resolved(value) for key, value in node.items() if key != "$ref"}
        return {**resolved(definitions[node["$ref"].rpartition("/")[2]]), **own} if "$ref" in node else own

    root: Node = resolved(schema)
    return root


def kinds_of(node: Node) -> dict[str, Node]:
    """The schemas of a section by kind, the default first.

    Returns:
        `{"": schema}` for a section without kinds, and an empty dictionary for a field that is not a section.
    """
    members = [member for member in node.get("oneOf", [node]) if "properties" in member]
    return {member["properties"].get("kind", {}).get("const", ""): member for member in members}


def fields_of(node: Node, raw: Any = None) -> dict[str, Node]:
    """The fields of a section, of the kind that its values select; none for an unknown kind or another field."""
    kinds = kinds_of(node)
    default = next(iter(kinds), "")
    kind = raw.get("kind", default) if isinstance(raw, Mapping) and "" not in kinds else default
    return kinds.get(kind, {}).get("properties", {}) if isinstance(kind, str) else {}


def values_of(node: Node) -> Node:
    """The schema of the values of a field that maps names to them; empty for other fields."""
    values = node.get("additionalProperties")
    return values if isinstance(values, dict) and "properties" not in node else {}


def walk(node: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Yield dotted name and schema of every field of every kind, sections before their fields."""
    for member in kinds_of(node).values():
        for name, field in member["properties"].items():
            yield f"{prefix}{name}", field
            yield from walk(field, f"{prefix}{name}.")
            yield from walk(values_of(field), f"{prefix}{name}.{NAME}.")


def describe(node: Node) -> str:
    """Describe a field's values in words, to complete `expected …`."""
    if kinds := kinds_of(node):
        if "" not in kinds:
            return f"a section with a `kind`, {either(kinds)}"
        return f"a section (fields: {', '.join(fields_of(node))})"
    if "anyOf" in node:
        return " or ".join(describe(member) for member in node["anyOf"])
    if "const" in node or "enum" in node:
        return either(node.get("enum", [node.get("const")]))
    if node["type"] == "array":
        if names := list(fields_of(node.get("items", {}))):
            return f"a list such as [{{{names[0]}: …}}] (fields: {', '.join(names)})"
        low, high = node.get("minItems", 0), node.get("maxItems")
        count = f" of {low} values" if low == high else f" of at least {low} values" if low else ""
        return f"a list{count} such as [a, b]"
    if node["type"] == "object":
        return "a mapping such as {name: …}"
    if "minLength" in node:
        return "a text that is not empty"
    bounds = [f"{words} {node[bound]}" for bound, words in _BOUNDS.items() if bound in node]
    return f"{_WORDS[node['type']]} {' and '.join(bounds)}".rstrip()


def either(values: Sequence[object] | Mapping[str, object]) -> str:
    """Join alternatives: `'a', 'b' or 'c'`."""
    *first, last = map(repr, values)
    return f"{', '.join(first)} or {last}" if first else last

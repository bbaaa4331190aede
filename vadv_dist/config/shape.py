"""The structure of a configuration, from its dataclasses: sections, fields, and the kinds of a section."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


@cache
def field_types(section: Any) -> dict[str, Any]:
    """The type of each field of a dataclass."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


@cache
def kinds_of(declared: Any) -> dict[str, type]:
    """The dataclasses of a section by kind, the default first.

    Returns:
        `{"": class}` for a section without kinds, and an empty dictionary for a type that is not a section.
    """
    members = [each for each in alternatives(declared) if isinstance(each, type) and dataclasses.is_dataclass(each)]
    if len(members) == 1 and len(get_args(field_types(members[0]).get("kind"))) != 1:
        return {"": members[0]}
    return {get_args(field_types(member)["kind"])[0]: member for member in members}


def alternatives(declared: Any) -> tuple[Any, ...]:
    """The members of a union, or a single type by itself."""
    declared = get_args(declared)[0] if get_origin(declared) is typing.Annotated else declared
    if get_origin(declared) in (Union, types.UnionType):
        return tuple(inner for each in get_args(declared) for inner in alternatives(each))
    return (declared,)


def chosen(declared: Any, raw: Any) -> type | None:
    """The dataclass that a section's `kind` selects, or None for an unknown kind."""
    kinds = kinds_of(declared)
    if "" in kinds:
        return kinds[""]
    kind = raw.get("kind") if isinstance(raw, dict) else raw
    return kinds.get(kind) if isinstance(kind, str) else next(iter(kinds.values()))


def walk(section: type, prefix: str = "") -> Iterator[tuple[str, Any, type]]:
    """Yield dotted name, type and class of every field of every kind, sections before their fields."""
    for name, declared in field_types(section).items():
        yield f"{prefix}{name}", declared, section
        for member in kinds_of(declared).values():
            yield from walk(member, f"{prefix}{name}.")


def describe(declared: Any) -> str:
    """Describe a type in words, to complete `expected …`."""
    if kinds := kinds_of(declared):
        if "" not in kinds:
            return "a section with a `kind`, " + _either([repr(kind) for kind in kinds])
        return f"a section (fields: {', '.join(field_types(kinds['']))})"
    members = alternatives(declared)
    if len(members) > 1:
        return " or ".join(describe(each) for each in members)
    (declared,) = members
    origin, inner = get_origin(declared), get_args(declared)
    if origin is Literal:
        return _either([repr(value) for value in inner])
    if origin in (list, tuple, Sequence):
        if inner and (item := kinds_of(inner[0]).get("")):
            names = list(field_types(item))
            return f"a list such as [{{{names[0]}: …}}] (fields: {', '.join(names)})"
        return "a list such as [a, b]"
    return _WORDS.get(declared, getattr(declared, "__name__", str(declared)))


def _either(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1]

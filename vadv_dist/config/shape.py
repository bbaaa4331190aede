"""The shape of a configuration, read off its dataclasses: sections, fields, and the kinds of a section."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


@cache
def field_types(section: Any) -> dict[str, Any]:
    """Type of each field of a dataclass."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


@cache
def kinds_of(declared: Any) -> dict[str, type]:
    """The dataclasses that a section may be, by kind; `{"": class}` where there is one, empty where it is no section.

    The first is the default.
    """
    members = [each for each in alternatives(declared) if isinstance(each, type) and dataclasses.is_dataclass(each)]
    if len(members) == 1 and len(get_args(field_types(members[0]).get("kind"))) != 1:
        return {"": members[0]}
    return {get_args(field_types(member)["kind"])[0]: member for member in members}


def alternatives(declared: Any) -> tuple[Any, ...]:
    """The members of a union; a type that is none, by itself."""
    declared = get_args(declared)[0] if get_origin(declared) is typing.Annotated else declared
    if get_origin(declared) in (Union, types.UnionType):
        return tuple(inner for each in get_args(declared) for inner in alternatives(each))
    return (declared,)


def chosen(declared: Any, raw: Any) -> type | None:
    """The dataclass of a section as its `kind` says; None where there is no such kind."""
    kinds = kinds_of(declared)
    if "" in kinds:
        return kinds[""]
    kind = raw.get("kind") if isinstance(raw, dict) else raw
    return kinds.get(kind) if isinstance(kind, str) else next(iter(kinds.values()))


def walk(section: type, prefix: str = "") -> Iterator[tuple[str, Any, type]]:
    """Dotted name, type and class of every field of every kind, sections before what they hold."""
    for name, declared in field_types(section).items():
        yield f"{prefix}{name}", declared, section
        for member in kinds_of(declared).values():
            yield from walk(member, f"{prefix}{name}.")


def describe(declared: Any) -> str:
    """A type in words, as the end of `expected …`."""
    if kinds := kinds_of(declared):
        if "" not in kinds:
            return "a section with a `kind`, " + _either([repr(kind) for kind in kinds])
        return f"a section with fields of its own ({', '.join(field_types(kinds['']))})"
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

"""Turns what jsonargparse raises into a message: what a value is, where it was given, and what was expected."""

import dataclasses
import re
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from vadv_dist.errors import UserError

# What jsonargparse says of such a value: the field, its own words for the type, the value.
_SAID = re.compile(r'Parser key "(?P<field>[\w.]+)": .*(?:Got|Given) value: (?P<value>.*?)\.?$')
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null"}


def refusal(error: BaseException, kind: Any, overrides: Sequence[str], where: str) -> UserError:
    """What to raise in place of an error of jsonargparse, which raises several kinds, some around our own.

    Args:
        error: what it raised.
        kind: the dataclass that was read, whose fields are sections.
        overrides: arguments of the command line, which win over the file.
        where: name of the file.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__ or cause.__context__
    said = " ".join(str(error).split())
    return UserError(
        _explained(said, kind, overrides, where)
        or f"{where}: {said.rstrip('.')}. Change it in the config file or override it."
    )


def _explained(said: str, kind: Any, overrides: Sequence[str], where: str) -> str | None:
    """The message on a wrong type, or None where another thing is wrong."""
    found = _SAID.search(said)
    if found is None:
        return None
    field = found["field"]
    expected = kind
    for name in field.split("."):
        fields = {f.name: f.type for f in dataclasses.fields(expected)} if dataclasses.is_dataclass(expected) else {}
        if name not in fields:
            return None
        expected = fields[name]
    given = next((a for a in reversed(overrides) if a.removeprefix("--").partition("=")[0] == field), None)
    place = given or where
    return f"{place}: {field} is {found['value']!r}, expected {describe(expected)}."


def describe(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(repr(value) for value in inner[:-1]) + (" or " if len(inner) > 1 else "") + repr(inner[-1])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(each) for each in inner)
    if origin in (list, tuple, Sequence):
        if inner and dataclasses.is_dataclass(inner[0]):
            names = [f.name for f in dataclasses.fields(inner[0])]
            return f"a list such as [{{{names[0]}: …}}] (fields: {', '.join(names)})"
        return "a list such as [a, b]"
    if dataclasses.is_dataclass(kind):
        return f"fields of its own ({', '.join(f.name for f in dataclasses.fields(kind))})"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))

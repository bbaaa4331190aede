"""Expand `~` and environment variables in paths and URIs."""

import os
import re
from pathlib import Path

from vadv_dist.errors import UserError

_NAME = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def expand(place: str, what: str) -> str:
    """Expand a leading `~` or `~user`, and `$NAME` and `${NAME}`.

    The configuration's sections and the command line's arguments do this when they are parsed, so that only expanded
    places are recorded.

    Args:
        place: a path or URI.
        what: the field or argument, for messages.
    Raises:
        UserError: a variable is not set or empty, or there is no such user.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1).strip("{}")
        found = os.environ.get(name)
        if not found:
            state = "is not set" if found is None else "is empty"
            raise UserError(
                f"{what} is {place!r}, but the environment variable {name!r} {state}. Set it, or write the full path."
            )
        return found

    expanded = _NAME.sub(value, place)
    if not place.startswith("~"):
        return expanded
    at_home = os.path.expanduser(expanded)
    if at_home.startswith("~"):
        name = expanded.partition("/")[0]
        raise UserError(
            f"{what} is {place!r}, but there is no user {name.removeprefix('~')!r}. Write ./{name} if it is a file or "
            "folder."
        )
    return at_home


def expand_fields(section: object, prefix: str, *names: str) -> None:
    """Expand the given fields of a frozen section in its `__post_init__`; None stays None."""
    for name in names:
        value = getattr(section, name)
        if value is not None:
            object.__setattr__(section, name, expand(value, f"{prefix}.{name}"))


def place(text: str) -> str:
    """Argument type of a path or URI on the command line."""
    return expand(text, "the argument")


def path(text: str) -> Path:
    """Argument type of a path on the command line."""
    return Path(place(text))

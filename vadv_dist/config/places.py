"""How a path or URI that somebody writes becomes the place that is meant: `~` and environment variables."""

import os
import re
from pathlib import Path

from vadv_dist.errors import UserError

_NAME = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def expand(place: str, what: str) -> str:
    """Replace a leading `~` or `~user` by that home folder, and `$NAME` and `${NAME}` by what the environment holds.

    This is done once, where a place enters: in the configuration's sections and in arguments of the command line. What
    is recorded is thus the place itself.

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
                f"{what} is {place!r}, but the environment variable {name!r} {state}. Set it, or write the place out."
            )
        return found

    expanded = _NAME.sub(value, place)
    if not place.startswith("~"):
        return expanded
    at_home = os.path.expanduser(expanded)
    if at_home.startswith("~"):
        name = expanded.partition("/")[0]
        raise UserError(
            f"{what} is {place!r}, but {name!r} is no user's home. Write ./{name} for a name in this folder."
        )
    return at_home


def expand_fields(section: object, prefix: str, *names: str) -> None:
    """Expand fields of a frozen section that hold places; null stays null. For its `__post_init__`."""
    for name in names:
        value = getattr(section, name)
        if value is not None:
            object.__setattr__(section, name, expand(value, f"{prefix}.{name}"))


def place(text: str) -> str:
    """The type of an argument of the command line that is a path or URI."""
    return expand(text, "the argument")


def path(text: str) -> Path:
    """The type of an argument of the command line that is a path."""
    return Path(place(text))

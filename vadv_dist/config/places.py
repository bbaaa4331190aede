"""Expand `~` and environment variables in paths and URIs.

The sections of the configuration and the arguments of the command line do this when they are parsed, so that only
expanded places are recorded.
"""

import os
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from vadv_dist.errors import UserError

VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})", re.ASCII)


def expand(place: str, what: str) -> str:
    """Expand a leading `~` or `~user`, and `$NAME` and `${NAME}`.

    Args:
        place: a path or URI.
        what: the argument, for messages.
    Raises:
        UserError: a variable is not set or empty, or there is no such user.
    """
    try:
        return _expanded(place)
    except ValueError as error:
        raise UserError(f"{what} is {place!r}, but {error}.") from None


def _expanded(place: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1).strip("{}")
        found = os.environ.get(name)
        if not found:
            state = "is not set" if found is None else "is empty"
            raise ValueError(f"the environment variable {name!r} {state}. Set it, or write the full path")
        return found

    expanded = VARIABLE.sub(value, place)
    if not place.startswith("~"):
        return expanded
    at_home = os.path.expanduser(expanded)
    if at_home.startswith("~"):
        name = expanded.partition("/")[0]
        raise ValueError(f"there is no user {name.removeprefix('~')!r}. Write ./{name} if it is a file or folder")
    return at_home


# The type of a field.
Place = Annotated[str, Field(min_length=1), AfterValidator(_expanded)]

"""Read the settings of a search: from the space file, then from the command line."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from typing import Any

from jsonargparse import ArgumentParser

from vadv_dist.config.overrides import take_overrides
from vadv_dist.config.search import SearchConfig
from vadv_dist.config.wrong_types import refusal
from vadv_dist.errors import UserError, did_you_mean


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part `--search.field=value` from the overrides of the run's configuration."""
    taken, others = take_overrides(overrides)
    mine = [argument for argument in taken if argument.startswith("--search.")]
    return mine, [argument for argument in taken if argument not in mine] + others


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Settings as a file and the command line name them: `search.<field>`."""

    search: SearchConfig


def load_search(raw: Mapping[str, Any], overrides: Sequence[str], where: str) -> SearchConfig:
    """Build the settings.

    Args:
        raw: the `search` part of a space file.
        overrides: `--search.field=value`, which win.
        where: the file's name, for messages.
    Raises:
        UserError: an unknown setting (with the nearest name), or a value of the wrong type.
    """
    known = [field.name for field in dataclasses.fields(SearchConfig)]
    names = [(where, str(name)) for name in raw]
    names += [(argument, argument.split("=", 1)[0].removeprefix("--search.")) for argument in overrides]
    for place, name in names:
        if name not in known:
            raise UserError(
                f"{place}: unknown setting search.{name} (there are: {', '.join(known)}).{did_you_mean(name, known)}"
            )
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    parser.add_class_arguments(SearchConfig, "search")
    try:
        with redirect_stderr(io.StringIO()):
            parsed = parser.parse_object({"search": dict(raw)}) if raw else parser.get_defaults()
            parsed = parser.parse_args(list(overrides), namespace=parsed)
            search: SearchConfig = parser.instantiate(parsed).search
    except Exception as error:
        raise refusal(error, _Settings, overrides, where) from None
    return search

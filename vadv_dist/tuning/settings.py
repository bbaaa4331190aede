"""Read the settings of a search: from the space file, then from the command line."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vadv_dist.config.load import build, take_overrides
from vadv_dist.config.search import SearchConfig


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate `--search.field=value` from overrides of the run's configuration."""
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
    return build(_Settings, {"search": dict(raw)}, overrides, where).search

"""Where a command's answer goes: JSON or a table on standard output, progress on standard error."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(stderr: bool = False) -> "Console":
    """The terminal, or what stands in its place."""
    from rich.console import Console

    return Console(stderr=stderr)


def print_json(value: object) -> None:
    """Print one JSON object in one line."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))

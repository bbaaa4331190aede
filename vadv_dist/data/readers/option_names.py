"""How messages name an option: as it is on the command line, or as a field of a configuration's section."""

from collections.abc import Callable

OptionName = Callable[[str], str]


def on_command_line(name: str) -> str:
    """`--text-column` for `text_column`."""
    return "--" + name.replace("_", "-")


def in_clips(name: str) -> str:
    """`clips.text_column` for `text_column`, as `vadv extract` has it."""
    return f"clips.{name}"

"""An argument parser with one-line errors and longer help, and types of arguments."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from vadv_dist.errors import UserError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, and suggests the closest name for an unknown command.

    Attributes:
        more_help: returns text to print below the options; called only if help is requested.
    """

    more_help: Callable[[], str] | None = None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": Help, **settings})

    def format_help(self) -> str:
        """Return the help of the command, followed by `more_help`."""
        text = super().format_help()
        return text if self.more_help is None else f"{text}\n{self.more_help()}\n"

    def of(self, arguments: Sequence[str]) -> "Parser":
        """The parser of the command, or command of a command, that some arguments begin with."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for number, argument in enumerate(arguments):
                    if isinstance(below := action.choices.get(argument), Parser):
                        return below.of(arguments[number + 1 :])
        return self

    @property
    def command(self) -> str:
        """The words of the command, such as `ingest table`."""
        return self.prog.removeprefix("vadv").strip()

    @property
    def options(self) -> list[str]:
        """Names of the options."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    @property
    def positionals(self) -> dict[str, str]:
        """How the help shows the positional arguments, by name."""
        plain = [action for action in self._actions if not action.option_strings]
        return {action.dest: str(action.metavar or action.dest) for action in plain}

    def unknown_option(self, arguments: Sequence[str]) -> str | None:
        """The first argument that is an option which this command does not have."""
        for argument in arguments:
            name = argument.partition("=")[0]
            if argument == "--":
                return None
            if not name.startswith("--") or " " in name or name in self.options:
                continue
            if not (self.allow_abbrev and any(option.startswith(name) for option in self.options)):
                return argument
        return None

    def command_names(self) -> list[str]:
        """Names of the commands."""
        below = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return [name for action in below for name in action.choices]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self._where()}{message}. See `{self.prog} --help`.")

    def _where(self) -> str:
        return f"{self.command}: " if self.command else ""  # every message starts with `vadv:`

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(c) for c in action.choices]
            raise UserError(
                f"{self._where()}unknown {action.dest} {value!r} (available: {', '.join(names)})."
                f"{did_you_mean(str(value), names)}"
            )


def place(text: str) -> str:
    """Argument type of a path or URI, in which `~` and variables are expanded."""
    from vadv_dist.config.places import expand

    if not text:
        raise argparse.ArgumentTypeError("it is empty, expected a path")
    return expand(text, "the argument")


def path(text: str) -> Path:
    """Argument type of a path."""
    return Path(place(text))


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # what `add_subparsers` returns


class Help(argparse.HelpFormatter):
    """Adds defaults, and keeps the help of subcommands on their line."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # whose indent argparse leaves out of the column width
            self._action_max_length += self._indent_increment

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not action.default or action.default is argparse.SUPPRESS or "default:" in text:
            return text
        return f"{text} (default: %(default)s)".lstrip()

"""How a mistake on the command line is told, and how the help stands."""

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

from vadv_dist.errors import UserError, did_you_mean


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, with the nearest name where a command is unknown.

    Attributes:
        more_help: called for what stands below the options' help; it is built only when help is asked for.
    """

    more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Help of the command, then `more_help`."""
        text = super().format_help()
        return text if self.more_help is None else f"{text}\n{self.more_help()}\n"

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse declares NoReturn; raising is that
        raise UserError(f"{self._where()}{message}. `{self.prog} --help` shows what it takes.")

    def _where(self) -> str:
        """The command, where there is one; `vadv:` stands before every message."""
        command = self.prog.removeprefix("vadv").strip()
        return f"{command}: " if command else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(c) for c in action.choices]
            raise UserError(
                f"{self._where()}unknown {action.dest} {value!r} (there are: {', '.join(names)})."
                f"{did_you_mean(str(value), names)}"
            )


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # what `add_subparsers` returns


class Help(argparse.HelpFormatter):
    """Counts the indent of subcommands, which argparse forgets, so that their help stands beside them."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment

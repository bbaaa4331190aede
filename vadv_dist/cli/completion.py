"""`vadv completion`: a script with which a shell completes the command line."""

import argparse
from collections.abc import Iterator

from vadv_dist.cli.parser import Commands, Parser, path, place

_SHELLS = ("bash", "zsh", "tcsh")


def add_completion_command(commands: Commands, parser: Parser) -> None:
    """Add `completion`, for all commands of `parser`."""
    completion = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description='For this shell alone: eval "$(vadv completion bash)". For every bash: vadv completion bash > '
        "~/.local/share/bash-completion/completions/vadv. For zsh: vadv completion zsh > a file _vadv in a folder of "
        "$fpath.",
    )
    completion.add_argument("shell", choices=_SHELLS)
    completion.set_defaults(call=lambda options: _completion(options.shell, parser))


def _completion(shell: str, parser: Parser) -> int:
    import shtab

    for action in _actions(parser):
        if action.type in (path, place):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)

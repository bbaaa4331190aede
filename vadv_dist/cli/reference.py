"""docs/cli.md, from the parser of the command line.

`python -m vadv_dist.cli.reference` writes the page (`make docs`).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from vadv_dist.cli.command import build_parser

HEAD = """# Commands

Every command of `vadv` with its arguments. `vadv COMMAND --help` prints the same; for commands that read a
configuration it also lists the fields, which [configuration.md](configuration.md) describes. Results go to standard
output, progress and messages to standard error.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | system failure |
| 2 | invalid input: the message says what to change |
| 75 | the machine will be taken away: run the same command again |
| 130, 143 | stopped by Ctrl-C, by SIGTERM: the same `train`, `tune`, `study`, `extract` or `workflow` resumes |

This page is generated from the parser by `make docs`.
"""


def markdown() -> str:
    """docs/cli.md. The text is the same for every version of Python and width of the terminal."""
    return "\n\n".join([HEAD.rstrip(), *_commands(build_parser())]) + "\n"


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """One part for each command below a parser, in the order of its help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            help_of = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield f"## {command.prog}"
                yield from _command(command, help_of.get(name, ""))
                yield from _commands(command)


def _command(parser: argparse.ArgumentParser, summary: str) -> Iterator[str]:
    yield _sentence(summary)
    if parser.description and parser.description.rstrip(".").lower() != summary.lower():
        yield _prose(parser.description)
    shown = (action for action in parser._actions if action.help != argparse.SUPPRESS)
    rows = [
        f"| {_names(action)} | {_default(action)} | {_meaning(action, parser)} |"
        for action in shown
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]
    if rows:
        yield "\n".join(["| argument | default | meaning |", "|---|---|---|", *rows])


def _names(action: argparse.Action) -> str:
    """An argument as it is typed, with what stands for its values."""
    value = "" if action.nargs == 0 else _value(action)
    if not action.option_strings:
        return f"`{value}`".replace("|", "\\|")
    return ", ".join(f"`{name} {value}`".replace(" `", "`") for name in action.option_strings).replace("|", "\\|")


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        names = [action.metavar] if isinstance(action.metavar, str) else list(action.metavar)
    elif action.choices is not None:
        names = ["{" + ",".join(map(str, action.choices)) + "}"]
    else:
        names = [action.dest.upper() if action.option_strings else action.dest]
    repeated = {"*": "[{} ...]", "+": "{} [{} ...]", "?": "[{}]"}
    if isinstance(action.nargs, str) and action.nargs in repeated:
        return repeated[action.nargs].replace("{}", names[0])
    if isinstance(action.nargs, int) and len(names) == 1:
        names *= action.nargs
    return " ".join(names)


def _default(action: argparse.Action) -> str:
    if action.required and action.option_strings:
        return "required"
    if not action.default or action.default is argparse.SUPPRESS or "default:" in (action.help or ""):
        return ""  # as in the help, a default in words comes first
    default = action.default
    return f"`{' '.join(map(str, default)) if isinstance(default, list | tuple) else default}`"


def _meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    values = {name: value for name, value in vars(action).items() if value is not argparse.SUPPRESS}
    return _prose((action.help or "") % {**values, "prog": parser.prog}).replace("|", "\\|")


def _sentence(text: str) -> str:
    text = _prose(text)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _prose(text: str) -> str:
    """Text for a page: on one line, with nothing that Markdown would take for HTML."""
    return " ".join(text.split()).replace("<", "&lt;")


def write(root: Path) -> None:
    """Write the page into a checkout."""
    (root / "docs" / "cli.md").write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parents[2])

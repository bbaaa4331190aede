"""Runs one command: what it is called with, how it ends.

Answers go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 a fault of the machine,
2 a mistake in what was given, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vadv_dist import __version__
from vadv_dist.cli.cluster import add_cluster_commands
from vadv_dist.cli.datasets import add_data_commands
from vadv_dist.cli.outputs import keep_outputs
from vadv_dist.cli.parser import Help, Parser
from vadv_dist.cli.runs import add_run_commands
from vadv_dist.cli.training import add_training_commands, add_tune_command
from vadv_dist.config.overrides import take_overrides
from vadv_dist.errors import MachineError, UserError, VadvError
from vadv_dist.runtime.garbage_collection import collect_no_more, collect_rarely
from vadv_dist.runtime.signals import TERMINATED, is_termination, sigterm_raises
from vadv_dist.runtime.terminal import harmless_streams

STOPPED = 130  # as a shell has it for Ctrl-C: 128 and the number of the signal
# What is wrong with a path that was given: no permission, nothing there, a file for a folder, a name too long.
_PLACES = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; SIGTERM is heard from here on."""
    collect_rarely()
    with sigterm_raises():
        code = main(argv)
    if code in (STOPPED, TERMINATED):  # threads may be working still, and are not waited for
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    collect_no_more()
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with harmless_streams():
        return exit_code_of(lambda: _call(arguments))


def exit_code_of(call: Callable[[], int]) -> int:
    """Call a command; return its exit code, or tell what ended it and return the code for that."""
    try:
        code = call()
        sys.stdout.flush()
        return code
    except VadvError as error:
        print(f"vadv: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        terminated = is_termination(error)
        print(
            f"vadv: stopped by {'SIGTERM' if terminated else 'Ctrl-C'}. Whatever was complete is saved; run the same "
            "command to continue.",
            file=sys.stderr,
        )
        return TERMINATED if terminated else STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            print(f"vadv: {error}. Nothing half-written was left; free some space and try again.", file=sys.stderr)
            return MachineError.exit_code
        if error.errno in _PLACES:
            print(f"vadv: {error}. Give a place that may be read and written.", file=sys.stderr)
            return UserError.exit_code
        raise
    except MemoryError:
        print("vadv: out of memory. Lower data.window_bytes or data.batch_size.", file=sys.stderr)
        return MachineError.exit_code


def _call(arguments: Sequence[str]) -> int:
    parser = build_parser()
    overrides: list[str] = []
    if _takes_overrides(parser, arguments):  # argparse would take a value that begins with a dash for an option
        overrides, arguments = take_overrides(arguments)
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_overrides", False):
        raise UserError(f"vadv {options.command}: unknown argument {rest[0]!r}. `vadv {options.command} --help`.")
    options.overrides = [*rest, *overrides]
    keep_outputs(options)
    code: int = options.call(options)
    return code


def _takes_overrides(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> bool:
    """Whether the command that is named has fields that `--section.field` sets."""
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    [commands] = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return name in commands and bool(commands[name].get_default("takes_overrides"))


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = Parser(
        prog="vadv",
        description="Distil a video teacher into a student that reads only the words.",
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"vadv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    add_data_commands(commands)
    add_training_commands(commands)
    add_run_commands(commands)
    add_cluster_commands(commands)
    add_tune_command(commands)
    return parser

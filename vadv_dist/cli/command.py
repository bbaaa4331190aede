"""Parse the command line, run one command, and turn its outcome into an exit code.

Results go to standard output, progress and messages to standard error. Exit codes: 0 success, 1 system failure,
2 invalid input, 75 after a notice that the machine will be taken away (SIGUSR1): run the same command again,
130 interrupted by Ctrl-C, 143 terminated by SIGTERM.
"""

import errno
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vadv_dist.cli.advise import add_advise_command
from vadv_dist.cli.cluster import add_cluster_commands
from vadv_dist.cli.completion import add_completion_command
from vadv_dist.cli.data_export import add_data_export_command
from vadv_dist.cli.datasets import add_data_commands
from vadv_dist.cli.init import add_init_command
from vadv_dist.cli.parser import Parser
from vadv_dist.cli.runs import add_run_commands
from vadv_dist.cli.serve import add_serve_command
from vadv_dist.cli.studies import add_study_commands
from vadv_dist.cli.training import add_training_commands, add_tune_command
from vadv_dist.cli.version import PrintVersions
from vadv_dist.cli.words import require_command, require_config, require_files, unknown_word
from vadv_dist.cli.workflow import add_workflow_command
from vadv_dist.errors import MachineError, UserError, VadvError
from vadv_dist.runtime.garbage_collection import collect_rarely
from vadv_dist.runtime.signals import NOTICED, STOPPED, TERMINATED, is_termination, sigterm_raises, termination
from vadv_dist.runtime.terminal import harmless_streams

# Arguments that name places a command writes to; `train`, `tune` and `extract` take theirs from the configuration.
OUTPUTS = {
    "synth": ("out",),
    "ingest": ("out",),
    "data-info": ("pictures",),
    "data-export": ("out",),
    "evaluate": ("run", "out"),
    "predict": ("output",),
    "retrieve": ("out",),
    "export": ("out",),
    "report": ("run",),
    "compare": ("html",),
    "recipes": ("file",),
    "init": ("file",),
}
_TAKE_OVERRIDES = ("doctor", "extract", "study", "submit", "train", "tune", "workflow")
# Commands that continue where they were stopped.
_RESUMABLE = ("extract", "study", "train", "tune", "workflow")
# The kind of configuration that a command's `--section.field` sets.
_FIELDS_OF = {
    "doctor": "run",
    "extract": "extract",
    "study": "run",
    "train": "run",
    "tune": "run",
    "workflow": "workflow",
}
# Errors caused by the path itself.
_PATH_ERRORS = (
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
    """Run one command and exit with its code; SIGTERM is handled from here on."""
    collect_rarely()
    with sigterm_raises():
        code = main(argv)
    if code in (STOPPED, TERMINATED, NOTICED):  # do not wait for threads that may still be working
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # a last collection would only delay the exit
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with harmless_streams():
        return exit_code_of(lambda: _call(arguments), resumes=bool(arguments) and arguments[0] in _RESUMABLE)


def _say(text: str, code: int) -> None:
    print(f"vadv: {text}", file=sys.stderr)


def exit_code_of(call: Callable[[], int], say: Callable[[str, int], None] = _say, *, resumes: bool = True) -> int:
    """Call a command and return its exit code; an error is reported and mapped to its code.

    Args:
        call: the command.
        say: reports the message of an error; it is given the exit code too.
        resumes: whether the command continues where it was stopped.
    """
    try:
        code = call()
        sys.stdout.flush()
        return code
    except VadvError as error:
        return _said(say, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        name, code = termination() if is_termination(error) else ("Ctrl-C", STOPPED)
        advice = " Completed work is saved; run the same command again to resume." if resumes else ""
        return _said(say, f"stopped by {name}.{advice}", code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            text = f"{error}. No partial file was left behind. Free some space and try again."
            return _said(say, text, MachineError.exit_code)
        if error.errno in _PATH_ERRORS:
            return _said(say, f"{error}. Use a path that exists and that you may access.", UserError.exit_code)
        raise
    except MemoryError:
        return _said(say, "out of memory. Lower data.window_bytes or data.batch_size.", MachineError.exit_code)


def _said(say: Callable[[str, int], None], text: str, code: int) -> int:
    say(text, code)
    return code


def _call(arguments: Sequence[str]) -> int:
    takes_overrides = bool(arguments) and arguments[0] in _TAKE_OVERRIDES
    overrides: list[str] = []
    if takes_overrides:  # argparse would parse a value that begins with a dash as an option
        from vadv_dist.config.load import take_overrides

        overrides, arguments = take_overrides(arguments)
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return 0
    require_command(arguments, parser.command_names())
    require_files(arguments)
    called = parser.of(arguments)
    asks_help = bool({"-h", "--help"} & set(arguments))
    if not asks_help and arguments[0] != "submit" and (unknown := called.unknown_option(arguments)) is not None:
        raise _unknown(arguments[0], unknown, called)  # rather than what is missing because of it
    require_config(arguments)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "submit":  # which passes them on
        raise _unknown(options.command, rest[0], called)
    options.overrides = [*rest, *overrides]
    for name in OUTPUTS.get(options.command, ()):
        if (given := getattr(options, name, None)) is not None:
            # Inside a Ray job, an output would be lost with the job's folder.
            from vadv_dist.runtime.job_storage import lasting

            setattr(options, name, type(given)(lasting(str(given), f"{options.command}: {name}")))
    code: int = options.call(options)
    return code


def _unknown(command: str, argument: str, called: Parser) -> UserError:
    """The error for an argument that a command does not have."""
    if command not in _FIELDS_OF:
        return unknown_word(called.command, argument, called.positionals, called.options)
    from vadv_dist.config.hints import unknown_argument
    from vadv_dist.config.reference import KINDS

    return unknown_argument(argument, KINDS[_FIELDS_OF[command]], called.options)


def build_parser() -> Parser:
    """Build the parser for all commands."""
    parser = Parser(prog="vadv", description="Distil a video teacher into a text-only student.")
    parser.add_argument(
        "--version", action=PrintVersions, nargs=0, help="print versions of vadv and its stack, and exit"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    add_data_commands(commands)
    add_data_export_command(commands)
    add_advise_command(commands)
    add_training_commands(commands)
    add_run_commands(commands)
    add_serve_command(commands)
    add_cluster_commands(commands)
    add_tune_command(commands)
    add_study_commands(commands)
    add_workflow_command(commands)
    add_init_command(commands)
    add_completion_command(commands, parser)
    return parser

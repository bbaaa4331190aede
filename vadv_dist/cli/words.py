"""What a user meant by a command line that names no command, or lacks the word before a file."""

import difflib
import shlex
from collections.abc import Mapping, Sequence

from vadv_dist.errors import UserError, did_you_mean

# What other programs call a command, and formats that `ingest table` reads.
_CALLED = {
    "advice": "advise",
    "check": "data-check",
    "deploy": "serve",
    "eval": "evaluate",
    "fit": "train",
    "generate": "synth",
    "hpo": "tune",
    "import": "ingest",
    "infer": "predict",
    "inference": "predict",
    "info": "data-info",
    "list": "runs",
    "logs": "watch",
    "ls": "runs",
    "pipeline": "workflow",
    "publish": "export",
    "push": "export",
    "resume": "train",
    "score": "evaluate",
    "search": "tune",
    "stats": "data-info",
    "status": "watch",
    "sweep": "tune",
    "test": "evaluate",
    "val": "evaluate",
    "validate": "evaluate",
    "version": "--version",
}
_FORMATS = {
    **dict.fromkeys(("csv", "tsv", "json", "jsonl", "parquet", "excel", "xlsx", "datasets", "huggingface"), "table"),
    **dict.fromkeys(("pkl", "pickle", "mosi", "mosei"), "mmsa"),
    **dict.fromkeys(("csd", "sdk"), "cmu-sdk"),
    "ave": "vegas",
}
# The option that a file needs if it directly follows a command.
_BEFORE_A_FILE = {
    ("train",): "--config",
    ("tune",): "--config",
    ("extract",): "--config",
    ("doctor",): "--config",
    ("ingest", "table"): "--csv",
    ("ingest", "mmsa"): "--file",
    ("ingest", "cmu-sdk"): "--labels",
    ("ingest", "vegas"): "--file",
}
# The option of a second word after a command's RUN.
_AFTER_A_RUN = {
    "predict": "--text",
    "export": "--out",
    "retrieve": "--query",
    "evaluate": "--data",
    "report": "--compare",
}
_WORKFLOW_ACTIONS = ("run", "explain", "status", "stage", "argo")


def require_command(arguments: Sequence[str], commands: Sequence[str]) -> None:
    """Check that a command line begins with a command, as far as something else is recognised.

    Raises:
        UserError: it begins with another program's word for a command, with the name of a shipped file, or with an
            option.
    """
    word = arguments[0]
    if word.startswith("-"):
        name = word.split("=")[0]
        if name == "--config" or "." in name:
            command = next((argument for argument in arguments if argument in commands), "train")
            others = [argument for argument in arguments if argument != command]
            raise UserError(f"a command comes before {name!r}: vadv {shlex.join([command, *others])}")
        if name not in ("-h", "--help", "--version"):
            raise UserError(f"unknown option {word!r}.{did_you_mean(word, ('--help', '--version'))} See `vadv --help`.")
        return
    if word == "help":
        shown = next((f"{each} " for each in arguments[1:] if each in commands), "")
        raise UserError(f"the help is shown by: vadv {shown}--help")
    if word in commands:
        return
    if word in _CALLED:
        raise UserError(f"unknown command {word!r}. Did you mean: vadv {_CALLED[word]}? `vadv --help` lists all.")
    from vadv_dist.config.hints import uses_of

    if uses := uses_of(word):
        raise UserError(f"unknown command {word!r}, but there is {' and '.join(uses)}.")


def require_files(arguments: Sequence[str]) -> None:
    """Check that a command that reads a file is given it in its way, as far as something else is recognised.

    Raises:
        UserError: a config without `--config` or with one too many, or a table without `--csv`.
    """
    command, rest = arguments[0], arguments[1:]
    if {"-h", "--help"} & set(rest):
        return
    for words, option in _BEFORE_A_FILE.items():
        after = list(arguments[len(words) :])
        if tuple(arguments[: len(words)]) == words and after and _is_word(after[0]):
            whole = shlex.join([*words, option, *after])
            raise UserError(f"{' '.join(words)}: write {option} before {after[0]!r}: vadv {whole}")
    if command in ("study", "workflow") and _has(rest, "--config"):
        whole = "workflow run" if command == "workflow" else command
        raise UserError(f"{command}: its file is given without --config: vadv {whole} FILE")
    if command == "workflow" and rest and rest[0] not in _WORKFLOW_ACTIONS and _is_file(rest[0]):
        raise UserError(f"workflow: what to do comes before {rest[0]!r}: vadv workflow run {shlex.join(rest)}")
    if command == "ingest" and rest and rest[0] in _FORMATS:
        raise UserError(f"ingest: unknown format {rest[0]!r}. Did you mean: vadv ingest {_FORMATS[rest[0]]}?")
    if command == "recipes" and rest[:1] == ["list"]:
        raise UserError("recipes: they are listed by: vadv recipes")


def require_config(arguments: Sequence[str]) -> None:
    """Check that a command that needs a config is given one.

    Raises:
        UserError: it is not.
    """
    command, rest = arguments[0], arguments[1:]
    if command in ("train", "tune", "extract") and not {"-h", "--help"} & set(rest) and not _has(rest, "--config"):
        recipe = "extract-raw" if command == "extract" else "demo"
        raise UserError(
            f"{command}: --config is missing. Give a YAML file or a recipe (`vadv recipes` lists them), such as "
            f"--config {recipe}."
        )


def unknown_word(command: str, word: str, positionals: Mapping[str, str], options: Sequence[str]) -> UserError:
    """The error for an argument that a command does not have.

    Args:
        command: the words of the command.
        word: the argument.
        positionals: how the help shows the command's arguments without an option, by name.
        options: its options.
    """
    see = f"See `vadv {command} --help`."
    if _is_word(word):
        option = _AFTER_A_RUN.get(command)
        hint = f" Did you mean {option} {shlex.quote(word)}?" if option else ""
        return UserError(f"{command}: unknown argument {word!r}.{hint} {see}")
    name = word.split("=")[0]
    if shown := positionals.get(name.lstrip("-").replace("-", "_")):
        return UserError(f"{command}: unknown option {name}. {shown} is given without an option. {see}")
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UserError(f"{command}: unknown option {name}.{hint} {see}")


def _has(arguments: Sequence[str], option: str) -> bool:
    return any(argument == option or argument.startswith(f"{option}=") for argument in arguments)


def _is_file(argument: str) -> bool:
    """Whether an argument is a YAML file, or the name of a shipped one."""
    from vadv_dist.config.hints import uses_of

    return argument.endswith((".yaml", ".yml")) or bool(uses_of(argument))


def _is_word(argument: str) -> bool:
    return not argument.startswith("-") and "=" not in argument

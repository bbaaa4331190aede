"""What a user meant by a command line that names no command, or a config where no config is expected."""

from collections.abc import Sequence

from vadv_dist.errors import UserError

# What other programs call a command.
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
_NEED_CONFIG = ("train", "tune", "extract")


def require_command(arguments: Sequence[str], commands: Sequence[str]) -> None:
    """Check that a command line begins with a command, as far as something else is recognised.

    Raises:
        UserError: it begins with another program's word for a command, or with the name of a shipped file.
    """
    word = arguments[0]
    if word in commands or word.startswith("-"):
        return
    if word == "help":
        shown = next((each for each in arguments[1:] if each in commands), "")
        raise UserError(f"the help is shown by: vadv {f'{shown} ' if shown else ''}--help")
    if word in _CALLED:
        raise UserError(f"unknown command {word!r}. Did you mean: vadv {_CALLED[word]}? `vadv --help` lists all.")
    if uses := _uses(word):
        raise UserError(f"unknown command {word!r}, but there is {' and '.join(uses)}.")


def require_config(arguments: Sequence[str]) -> None:
    """Check that a command that needs a config is given one.

    Raises:
        UserError: without `--config`; a config after the command is recognised.
    """
    command, rest = arguments[0], arguments[1:]
    if command not in _NEED_CONFIG or any(a == "--config" or a.startswith("--config=") for a in rest):
        return
    if {"-h", "--help"} & set(rest):
        return
    config = next(iter(rest), "")
    if config and not config.startswith("-") and "=" not in config:
        more = f" {' '.join(rest[1:])}" if rest[1:] else ""
        raise UserError(f"{command}: write --config before {config!r}: vadv {command} --config {config}{more}")
    recipe = "extract-raw" if command == "extract" else "demo"
    raise UserError(
        f"{command}: --config is missing. Give a YAML file or a recipe (`vadv recipes` lists them), such as --config "
        f"{recipe}."
    )


def _uses(name: str) -> list[str]:
    """What shipped files have a name, each with the command that reads it."""
    from vadv_dist.config.recipes import list_recipes
    from vadv_dist.config.shipped import shipped_folders

    recipes = [recipe for recipe in list_recipes() if recipe.name == name]
    found = [f"a recipe of that name (vadv {recipe.command} --config {name})" for recipe in recipes]
    for what, checkout, installed, command in (
        ("a workflow", "jobs/workflows", "workflows", f"vadv workflow run {name}"),
        ("a study", "jobs/studies", "studies", f"vadv study {name}"),
    ):
        if any((folder / f"{name}.yaml").is_file() for folder in shipped_folders(checkout, installed)):
            found.append(f"{what} of that name ({command})")
    return found

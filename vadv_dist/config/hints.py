"""What a user probably meant: the kind of a file that was given to another command, and the field of an argument."""

import dataclasses
import difflib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from vadv_dist.config.shape import tree, walk
from vadv_dist.config.shipped import shipped_folders
from vadv_dist.errors import UserError, did_you_mean

# A kind of file by the name of its class: what it is called, and the command that reads it.
_FILES = {
    "Config": ("the config of a run", "vadv train --config {path}"),
    "ExtractConfig": ("the config of an extraction", "vadv extract --config {path}"),
    "SpaceFile": ("a search space", "vadv tune --config RUN --space {path}"),
    "StudyConfig": ("a study file", "vadv study {path}"),
    "WorkflowConfig": ("a workflow file", "vadv workflow run {path}"),
}
SPACE_PARTS = ("search", "space", "first")


def require_file_of(kind: str, raw: Mapping[str, Any], path: object) -> None:
    """Check that a file is not one of another kind.

    Args:
        kind: name of the expected class, a key of `_FILES`.
        raw: the file's sections by name.
        path: the file, for the message.
    Raises:
        UserError: its sections are those of another kind of file.
    """
    sections = _sections()
    names = set(map(str, raw))
    if kind not in _FILES or not names or names <= sections[kind]:
        return
    for other, known in sections.items():
        if names <= known:
            what, command = _FILES[other]
            use = command.format(path=shlex.quote(str(path)))
            raise UserError(f"{path} is {what}, but this command reads {_FILES[kind][0]}. Use it with: {use}")


def unknown_argument(argument: str, kind: Any, options: Sequence[str] = ()) -> UserError:
    """The error for an argument that sets no field of a configuration, which names the field or option that was meant.

    Args:
        argument: the argument.
        kind: the configuration's dataclass.
        options: the command's own options.
    """
    name = argument.partition("=")[0]
    what = f"unknown option {name}" if name.startswith("-") else f"unknown argument {argument!r}"
    fields = list(dict.fromkeys(field for field, _ in walk(tree(kind)) if "." in field))
    wanted = name.lstrip("-").replace("-", "_")
    meant = [field for field in fields if wanted in (field, field.rpartition(".")[2])]
    if not meant and name.startswith("-"):
        same = [option for option in options if _letters(option) == _letters(name)]
        if near := same or difflib.get_close_matches(name, options, n=1, cutoff=0.75):
            return UserError(f"{what}. Did you mean {near[0]}?")
    if meant:
        by_depth = sorted(meant, key=lambda field: field.count("."))
        return UserError(f"{what}. Did you mean {' or '.join(f'--{field}=VALUE' for field in by_depth[:3])}?")
    example = "trainer.epochs=3" if "trainer.epochs" in fields else f"{fields[0]}=VALUE"
    return UserError(
        f"{what}.{did_you_mean(wanted, fields)} Fields are overridden with "
        f"--section.field=VALUE, for example --{example}."
    )


def uses_of(name: str) -> list[str]:
    """What shipped files have a name, each with the command that reads it."""
    from vadv_dist.config.recipes import list_recipes

    recipes = [recipe for recipe in list_recipes() if recipe.name == name]
    found = [f"a recipe of that name (vadv {recipe.command} --config {name})" for recipe in recipes]
    for what, checkout, installed, command in (
        ("a workflow", "jobs/workflows", "workflows", f"vadv workflow run {name}"),
        ("a study", "jobs/studies", "studies", f"vadv study {name}"),
        ("a search space", "tune_spaces", "tune_spaces", f"vadv tune --config RUN --space {name}"),
    ):
        if any((folder / f"{name}.yaml").is_file() for folder in shipped_folders(checkout, installed)):
            found.append(f"{what} of that name ({command})")
    return found


def _letters(option: str) -> str:
    return option.lower().replace("-", "").replace("_", "")


def _sections() -> dict[str, set[str]]:
    """The sections of each kind of file."""
    from vadv_dist.config.extract_sections import ExtractConfig
    from vadv_dist.config.sections import Config
    from vadv_dist.config.study import StudyConfig
    from vadv_dist.config.workflow import WorkflowConfig

    kinds = (Config, ExtractConfig, StudyConfig, WorkflowConfig)
    return {kind.__name__: {field.name for field in dataclasses.fields(kind)} for kind in kinds} | {
        "SpaceFile": set(SPACE_PARTS)
    }

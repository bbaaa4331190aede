"""What a user probably meant: the kind of a file that was given to another command, and the field of an argument."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vadv_dist.config.shape import tree, walk
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
            raise UserError(
                f"{path} is {what}, but this command reads {_FILES[kind][0]}. Use it with: {command.format(path=path)}"
            )


def unknown_argument(argument: str, kind: Any) -> UserError:
    """The error for an argument that sets no field of a configuration, which names the field that was meant."""
    name = argument.partition("=")[0]
    fields = [field for field, _ in walk(tree(kind)) if "." in field]
    wanted = name.lstrip("-").replace("-", "_")
    meant = [field for field in dict.fromkeys(fields) if field == wanted or field.rpartition(".")[2] == wanted]
    if meant:
        shown = " or ".join(f"--{field}=VALUE" for field in meant[:3])
        return UserError(f"Unknown argument {argument!r}. Did you mean {shown}?")
    example = next((field for field in fields if field == "trainer.epochs"), fields[0])
    return UserError(
        f"Unknown argument {argument!r}.{did_you_mean(wanted, fields)} Fields are overridden with "
        f"--section.field=VALUE, for example --{example}=3."
    )


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

"""All kinds of students and objectives as small runs, for the tests of engines and of Ray: not a test itself."""

import dataclasses
from pathlib import Path

from vadv_dist.config import Config, config_from_dict, config_to_dict
from vadv_dist.config.shape import fields_of, kinds_of, tree

RETRIEVAL, SENTIMENT = "retrieval", "sentiment"


def kinds(section: str) -> list[str]:
    """The kinds of a section of the configuration."""
    return list(kinds_of(fields_of(tree(Config))[section]))


def students() -> list[str]:
    """The kinds of retrieval students."""
    return [kind for kind in kinds("student") if kind != "text"]


def variant(base: Config, name: str, *, storage: Path | None = None, **sections: str) -> Config:
    """A configuration with other kinds of sections, which have their defaults, but no dropout and no guard.

    In the first epoch the guard would leave out what the teacher tells the student.
    """
    raw = config_to_dict(base)
    for section, kind in sections.items():
        raw[section] = kind
    raw["run"] |= {"name": name, **({} if storage is None else {"storage": str(storage)})}
    config = config_from_dict(raw)
    if hasattr(config.objective, "guard"):
        config = dataclasses.replace(config, objective=dataclasses.replace(config.objective, guard="off"))
    if not hasattr(config.student, "dropout"):
        return config
    return dataclasses.replace(config, student=dataclasses.replace(config.student, dropout=0.0))

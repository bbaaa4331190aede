"""Locations for the output of a Ray job, never in the job's working directory, which is a copy that Ray deletes."""

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from vadv_dist.errors import UserError
from vadv_dist.storage import Location, location, on_disk

C = TypeVar("C")
# The base of a job's relative paths.
BASE = "VADV_STORAGE"
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray's job manager
_REMOVED = ("runtime_resources", "working_dir_files")  # where Ray puts working directories
_WHY = "a Ray job's working directory, a copy that Ray deletes"
_INSTEAD = f"Use s3://… or an absolute path on permanent storage, or set {BASE} to such a location"


def lasting(uri: str, what: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return an output location unchanged, or below `VADV_STORAGE` if it would be deleted with a Ray job.

    Args:
        uri: the output location.
        what: the field or argument, for messages.
        environment: environment variables of the process.
    Raises:
        UserError: the location is in a job's working directory, and `VADV_STORAGE` is not set.
    """
    place = location(uri)
    if place.is_absolute():
        if _is_removed(place):
            raise UserError(f"{what} is {uri}, which is in {_WHY}. {_INSTEAD}, and use a path relative to that.")
        return uri
    if not (_is_removed(Path.cwd()) or _has_working_dir(environment)):
        return uri
    base = environment.get(BASE)
    if not base:
        raise UserError(f"{what} is {uri}, relative to {_WHY}. {_INSTEAD}, to which it is then relative.")
    root = location(base)
    if not root.is_absolute() or _is_removed(root):
        raise UserError(f"{BASE} is {base}, expected s3://… or an absolute path outside {_WHY}.")
    if ".." in PurePosixPath(str(place)).parts:
        raise UserError(f"{what} is {uri}, which is outside {BASE} ({base}). Use a path without `..`.")
    kept = str(root / str(place))
    print(f"vadv: {what} is {uri}, relative to {_WHY}: {BASE} changes it to {kept}", file=sys.stderr)
    return kept


def with_lasting(config: C, *names: str) -> C:
    """Apply `lasting` to fields of a configuration, such as `run.storage`."""
    made: Any = config
    for name in names:
        section, field = name.split(".")
        values = getattr(made, section)
        kept = lasting(getattr(values, field), name)
        made = dataclasses.replace(made, **{section: dataclasses.replace(values, **{field: kept})})
    result: C = made
    return result


def _is_removed(place: Location) -> bool:
    path = on_disk(place)
    return path is not None and _REMOVED in itertools.pairwise(Path(os.path.abspath(path)).parts)


def _has_working_dir(environment: Mapping[str, str]) -> bool:
    """Whether this is the process of a job whose files Ray has unpacked."""
    try:
        return bool(json.loads(environment.get(_JOB, "{}"))["runtime_env"]["working_dir"])
    except (ValueError, KeyError, TypeError):
        return False

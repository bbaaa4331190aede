"""Locations for the output of a Ray job, never in the job's working directory, which is a copy that Ray deletes."""

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from vadv_dist.errors import UserError
from vadv_dist.storage import Location, location, on_disk

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")
BASE = "VADV_STORAGE"  # the variable with the base of a job's relative paths
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray's job manager
_REMOVED = ("runtime_resources", "working_dir_files")  # where Ray puts working directories
_WHY = "a Ray job's working directory, a copy that Ray deletes"
_INSTEAD = f"Use s3://… or an absolute path on permanent storage, or set {BASE} to such a location"


def lasting(uri: str, what: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return an output location unchanged, or below `VADV_STORAGE` if it would be deleted with a Ray job.

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


def with_lasting(config: C, name: str) -> C:
    """Apply `lasting` to a field of a configuration, such as `run.storage`."""
    section, field = name.split(".")
    values = getattr(config, section)
    kept = dataclasses.replace(values, **{field: lasting(getattr(values, field), name)})
    return dataclasses.replace(config, **{section: kept})


def _is_removed(place: Location) -> bool:
    path = on_disk(place)
    return path is not None and _REMOVED in itertools.pairwise(Path(os.path.abspath(path)).parts)


def _has_working_dir(environment: Mapping[str, str]) -> bool:
    try:  # whether this is the process of a job whose files Ray has unpacked
        return bool(json.loads(environment.get(_JOB, "{}"))["runtime_env"]["working_dir"])
    except (ValueError, KeyError, TypeError):
        return False

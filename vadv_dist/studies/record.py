"""The record of a study in its folder: what it compares, and the configuration of each variant."""

import itertools
from dataclasses import replace
from typing import Any

import yaml

from vadv_dist.config import Config, config_to_dict, config_to_yaml
from vadv_dist.config.load import build, differing_keys
from vadv_dist.config.study import StudyConfig
from vadv_dist.config.yaml_text import parse_yaml
from vadv_dist.errors import UserError
from vadv_dist.runs.folder import without_machine_fields
from vadv_dist.storage import Location, location, write_text
from vadv_dist.studies.plan import SEEDS, StudyPlan

RECORD = "study.yaml"  # the study file, as it ran
_PLAN = "plan.yaml"  # what the file and the command line came to


def is_study(root: Location) -> bool:
    """Whether a folder is that of a study."""
    return (root / RECORD).is_file() and "variants" in _read(root / RECORD)


def write_record(plan: StudyPlan, *, best_per_metric: bool) -> None:
    """Write the record of a study that starts."""
    write_text(plan.root / RECORD, config_to_yaml(plan.study))
    what = {
        "file": plan.where,
        "small": plan.small,
        "best_per_metric": best_per_metric,
        "variants": {name: config_to_dict(config) for name, config in plan.variants.items()},
    }
    write_text(plan.root / _PLAN, yaml.safe_dump(what, sort_keys=False, allow_unicode=True))


def read_record(root: Location) -> tuple[StudyPlan, bool]:
    """The study of a folder as it was started last, and whether it shows the best checkpoint per metric.

    Raises:
        UserError: the folder is not that of a study, or of one of an earlier version.
    """
    if not is_study(root):
        raise UserError(f"{root} is not the folder of a study: it has no {RECORD} with variants.")
    if not (root / _PLAN).is_file():
        raise UserError(
            f"{root} has no {_PLAN}, which earlier versions did not write. Run its `vadv study` command again: nothing "
            "that is complete is trained again."
        )
    what = _read(root / _PLAN)
    variants = {name: build(Config, raw, (), f"{root / _PLAN}, {name}") for name, raw in what["variants"].items()}
    study = build(StudyConfig, _read(root / RECORD), (), str(root / RECORD))
    return StudyPlan(study, what["file"], root, variants, what["small"]), what["best_per_metric"]


def numbered_for_seeds(config: Config) -> Config:
    """The run of `vadv train --seeds` with the name of its study, if nobody gave it one.

    It is the first of NAME, NAME-2, NAME-3, … whose folder holds the study of this very run, or else nothing.
    """
    for number in itertools.count(1):
        name = config.run.name if number == 1 else f"{config.run.name}-{number}"
        root = location(config.run.storage) / name
        is_free = not root.exists() or (root.is_dir() and all(path.name.startswith(".") for path in root.iterdir()))
        if is_free or _is_of(root, config):
            return replace(config, run=replace(config.run, name=name))
    raise AssertionError


def _is_of(root: Location, config: Config) -> bool:
    """Whether a folder holds the study of the seeds of a run, whatever its name and seeds are."""
    if not root.is_dir() or not is_study(root):
        return False
    try:
        plan, _ = read_record(root)
    except UserError:  # of another version
        return False
    variants = list(plan.variants.values())
    return plan.where == SEEDS and len(variants) == 1 and not differing_keys(_trained(variants[0]), _trained(config))


def _trained(config: Config) -> dict[str, Any]:
    """A configuration without what may change when a run is resumed, and without name and seed."""
    return {**without_machine_fields(config_to_dict(config)), "run": None}


def _read(path: Location) -> dict[str, Any]:
    found: dict[str, Any] = parse_yaml(path.read_text(encoding="utf-8"), path)
    return found

"""Read a study file, and build the configuration of each variant's run."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vadv_dist.config.hints import require_file_of, unknown_argument
from vadv_dist.config.load import build, read_yaml, set_field, take_overrides
from vadv_dist.config.recipes import config_path
from vadv_dist.config.sections import Config
from vadv_dist.config.shipped import find_shipped
from vadv_dist.config.study import Overrides, StudyConfig, fill_in
from vadv_dist.errors import UserError, did_you_mean


def find_study(study: str | Path) -> Path:
    """Return a study file, or the shipped one of that name.

    Raises:
        UserError: there is neither.
    """
    return find_shipped(study, "study", "jobs/studies", "studies")


def load_study(path: Path) -> StudyConfig:
    """Read a study file.

    Raises:
        UserError: no such file, not YAML, an unknown field, or a value that is not allowed.
    """
    raw = read_yaml(path)
    require_file_of("StudyConfig", raw, path)
    return build(StudyConfig, raw, (), str(path))


def small_study(study: StudyConfig, where: str) -> StudyConfig:
    """The study that `--scale small` runs.

    Args:
        study: the study as in its file.
        where: the file's name, for messages.
    Raises:
        UserError: the file has no `small` part.
    """
    small = study.small
    if not small.is_given:
        raise UserError(f"{where} has no `small` part, so it cannot run with --scale small. Leave --scale out.")
    variants = {}
    for name, variant in study.variants.items():
        changed = small.variants.get(name)
        predictions = changed.predictions if changed else None
        if variant.predictions is not None and predictions is None:
            continue  # these are predictions for other clips
        overrides = {**variant.overrides, **(changed.overrides if changed else {})}
        config = (changed.config if changed else None) or (None if small.config else variant.config)
        if predictions is not None:
            overrides, config = {}, None
        variants[name] = dataclasses.replace(
            variant, overrides=overrides, config=config, published={}, predictions=predictions
        )
    reference = study.reference_name
    return dataclasses.replace(
        study,
        config=small.config or study.config,
        overrides={**study.overrides, **small.overrides},
        variants=variants,
        reference=reference if reference in variants else None,
        seeds=small.seeds or study.seeds,
        published=None,
    )


class StudyRuns:
    """The configurations of a study's runs.

    Args:
        study: the study, as it runs.
        where: its file, for messages.
        arguments: `--section.field=value` of the command line. They override the study's `overrides`; those of a
            variant, which make it what it is, come after them.
    Raises:
        UserError: an argument that is not an override.
    """

    def __init__(self, study: StudyConfig, where: str, arguments: Sequence[str] = ()) -> None:
        overrides, others = take_overrides(arguments)
        if others:
            raise unknown_argument(others[0], Config)
        self._study, self._where = study, where
        self._arguments = [argument.removeprefix("--").partition("=")[::2] for argument in overrides]

    @property
    def storage(self) -> str:
        """`run.storage`, in which the study has its folder."""
        raw = self._common(self._study.config, {})
        return build(Config, {"run": raw.get("run")}, (), self._where).run.storage

    def base(self, folders: Mapping[str, str]) -> Config:
        """The configuration that the variants change; see `configs`."""
        return _build(self._common(self._study.config, folders), f"{self._where}, overrides")

    def configs(self, folders: Mapping[str, str]) -> dict[str, Config]:
        """The configuration of each variant that is trained; its seed, name and storage are still the base's.

        Args:
            folders: folders of the study's synthetic data sets by name.
        Raises:
            UserError: an override of the study or of a variant is refused; the message names it.
        """
        self.base(folders)
        found = {}
        for name, variant in self._study.variants.items():
            if variant.predictions is not None:
                continue
            where = f"{self._where}, variant {name!r}"
            raw = self._common(variant.config or self._study.config, folders)
            self._set(raw, variant.overrides, folders, where, refused=("run",))
            found[name] = _build(raw, where)
        return found

    def _common(self, config: str | None, folders: Mapping[str, str]) -> dict[str, Any]:
        """What all variants with a base configuration share, as plain containers."""
        raw = {} if config is None else read_yaml(config_path(config))
        refused = ("run.name", "run.seed")
        self._set(raw, self._study.overrides, folders, f"{self._where}, overrides", refused=refused)
        for name, text in self._arguments:
            if name in refused:
                raise UserError(f"--{name}={text}: the study sets it. Use --name or --seeds.")
            set_field(raw, Config, name, text, is_text=True)
        return raw

    def _set(
        self,
        raw: dict[str, Any],
        overrides: Overrides,
        folders: Mapping[str, str],
        where: str,
        *,
        refused: tuple[str, ...],
    ) -> None:
        for name, value in overrides.items():
            if any(name == field or name.startswith(f"{field}.") for field in refused):
                raise UserError(
                    f"{where}: {name} is set by the study, which names the runs after variant and seed. Leave it out."
                )
            try:
                filled = fill_in(copy.deepcopy(value), "made:", folders) if folders else value
            except KeyError as error:
                made = ", ".join(folders)
                raise UserError(
                    f"{where}: {name} refers to made:{error.args[0]}, but `small.made` has {made}."
                    f"{did_you_mean(str(error.args[0]), folders)}"
                ) from None
            set_field(raw, Config, name, filled)


def _build(raw: Mapping[str, Any], where: str) -> Config:
    return build(Config, raw, (), where)

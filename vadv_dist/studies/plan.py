"""What a study trains: its folder, its synthetic data, and the configuration of every run."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from vadv_dist.config import Config
from vadv_dist.config.study import StudyConfig, folder_name
from vadv_dist.config.study_runs import StudyRuns, find_study, load_study, small_study
from vadv_dist.errors import UserError
from vadv_dist.runs.checkpoint import last_checkpoint
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runtime.job_storage import lasting
from vadv_dist.storage import Location, location
from vadv_dist.tuning.events import Failed
from vadv_dist.tuning.jobs import outcome

# In place of its file, what a study of `vadv train --seeds` was made from.
SEEDS = "--seeds"

State = Literal["complete", "failed", "started", "missing"]


@dataclass(frozen=True)
class StudyRun:
    """One run of a study: a variant with a seed."""

    variant: str
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """The run in messages."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def folder(self) -> RunFolder:
        """Its folder, which is that of an ordinary run."""
        return RunFolder.of(self.config)

    @property
    def state(self) -> State:
        """How far it is."""
        ended = outcome(self.folder)
        if ended is not None:
            return "failed" if isinstance(ended, Failed) else "complete"
        return "missing" if last_checkpoint(self.folder.checkpoints) is None else "started"


@dataclass(frozen=True)
class StudyPlan:
    """A study and its runs.

    Attributes:
        study: the study, as it runs.
        where: its file, for messages.
        root: its folder.
        variants: the configuration of each variant that is trained.
        small: whether this is the small part of the study.
    """

    study: StudyConfig
    where: str
    root: Location
    variants: dict[str, Config]
    small: bool = False

    @property
    def made(self) -> Location:
        """Folder of the study's synthetic data sets."""
        return self.root / "data"

    @cached_property
    def runs(self) -> list[StudyRun]:
        """All runs in the order in which they start: every variant with the first seed, then with the next."""
        return [
            StudyRun(variant, seed, self._with_seed(config, variant, seed))
            for seed in self.study.seeds
            for variant, config in self.variants.items()
        ]

    def _with_seed(self, config: Config, variant: str, seed: int) -> Config:
        name = f"{folder_name(variant)}-seed-{seed}"
        run = dataclasses.replace(config.run, name=name, storage=str(self.root / "runs"), seed=seed)
        # Runs cannot share a port.
        telemetry = dataclasses.replace(config.telemetry, port=None)
        return dataclasses.replace(config, run=run, telemetry=telemetry)


def plan_study(
    study: str | Path,
    overrides: Sequence[str] = (),
    *,
    small: bool = False,
    seeds: Sequence[int] = (),
    name: str | None = None,
) -> StudyPlan:
    """Read a study file and build the configurations of its runs; nothing is written.

    Args:
        study: a study file, or the name of a shipped one.
        overrides: `--section.field=value` for every variant.
        small: whether to run the file's `small` part.
        seeds: seeds instead of the file's.
        name: name of the study's folder in `run.storage`; None is that of the file, with `-small` if it is.
    Raises:
        UserError: no such file, or a mistake in it.
    """
    path = find_study(study)
    config = load_study(path)
    if small:
        config = small_study(config, str(path))
    if seeds:
        config = with_seeds(config, seeds)
    runs = StudyRuns(config, str(path), overrides)
    name = name or f"{path.stem}{'-small' if small else ''}"
    if folder_name(name) != name:
        raise UserError(f"--name is {name!r}, expected a folder name of letters, digits, hyphens, `_` and `.`.")
    root = location(lasting(runs.storage, "run.storage")) / name
    made = {each: str(root / "data" / each) for each in (config.small.made if small else ())}
    configs = runs.configs(made)
    if not configs:
        raise UserError(f"{path} has no variant that is trained, only predictions. Add one, which also names the data.")
    return StudyPlan(config, str(path), root, configs, small)


def plan_seeds(config: Config, seeds: Sequence[int]) -> StudyPlan:
    """The smallest study: one run with several seeds, scored on the validation split.

    Args:
        config: the run; its name is that of the study's folder.
        seeds: at least one.
    """
    from vadv_dist.config.study import VariantConfig

    name = config.run.name
    study = with_seeds(StudyConfig(title=name, variants={name: VariantConfig()}, splits=("valid",)), seeds)
    root = location(lasting(config.run.storage, "run.storage")) / name
    return StudyPlan(study, SEEDS, root, {name: config})


def with_seeds(study: StudyConfig, seeds: Sequence[int]) -> StudyConfig:
    """The study with other seeds.

    Raises:
        UserError: none, a negative one, or one twice.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        given = ",".join(map(str, seeds))
        raise UserError(f"--seeds is {given!r}, expected different integers from 0, such as 1,2,3.")
    return dataclasses.replace(study, seeds=tuple(seeds))


def make_data(plan: StudyPlan) -> list[Location]:
    """Make the synthetic data sets that are missing; return their folders.

    Raises:
        UserError: one exists with other settings.
    """
    from vadv_dist.data.synth.made import differing, make

    written = []
    for name, made in plan.study.small.made.items() if plan.small else ():
        target = plan.made / name
        if not (target / "dataset.json").is_file():
            make(made, target)
            written.append(target)
        elif changed := differing(made, target):
            raise UserError(
                f"{target} was made with other values of {', '.join(changed)}. Remove that folder and the runs that "
                "were trained on it, or choose another --name."
            )
    return written

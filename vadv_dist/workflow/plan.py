"""A workflow file as stages, in an order in which each comes after what it needs."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vadv_dist import __version__
from vadv_dist.config.load import config_to_dict, load_sections
from vadv_dist.config.shipped import find_shipped
from vadv_dist.config.workflow import WorkflowConfig
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.runtime.job_storage import with_lasting
from vadv_dist.storage import Location, location
from vadv_dist.workflow.data_stages import advise_stage, check_stage, data_stage
from vadv_dist.workflow.handover_stages import export_stage, report_stage
from vadv_dist.workflow.outside import Seen, look
from vadv_dist.workflow.run_stages import evaluate_stage, placeholders, run_config, study_stage, train_stage, tune_stage
from vadv_dist.workflow.stage import Stage


@dataclass(frozen=True)
class Workflow:
    """A workflow and its stages.

    Attributes:
        config: the workflow file.
        stages: its stages by name; each comes after what it needs.
    """

    config: WorkflowConfig
    stages: dict[str, Stage]

    @cached_property
    def root(self) -> Location:
        """Its folder."""
        return workflow_root(self.config)

    @property
    def planned(self) -> dict[str, Any]:
        """What another process needs to plan the same workflow without reading files from outside, as plain values."""
        seen = {
            name: {role: dataclasses.asdict(each) for role, each in stage.seen.items()}
            for name, stage in self.stages.items()
        }
        known = {name: roles for name, roles in seen.items() if roles}
        return {"version": __version__, "config": config_to_dict(self.config), "seen": known}

    def folder(self, stage: Stage) -> Location:
        """The folder of a stage."""
        return stage.folder(self.root)

    def stage(self, name: str) -> Stage:
        """One stage.

        Raises:
            UserError: there is no such stage.
        """
        if name not in self.stages:
            raise UserError(
                f"There is no stage {name!r} (stages: {', '.join(self.stages)}).{did_you_mean(name, self.stages)}"
            )
        return self.stages[name]

    def of_kind(self, *kinds: str) -> list[str]:
        """Names of the stages of these kinds."""
        return [name for name, stage in self.stages.items() if stage.kind in kinds]


def workflow_root(config: WorkflowConfig) -> Location:
    """The folder of a workflow."""
    return location(config.workflow.storage) / config.workflow.name


def find_workflow(file: str | Path) -> Path:
    """Return a workflow file, or the shipped one of that name.

    Raises:
        UserError: there is neither.
    """
    return find_shipped(file, "workflow", "jobs/workflows", "workflows")


def load_workflow(file: str | Path, overrides: Sequence[str] = ()) -> WorkflowConfig:
    """Read a workflow file.

    Args:
        file: a workflow file, or the name of a shipped one.
        overrides: `--section.field=value`.
    Raises:
        UserError: no such file, or a mistake in it.
    """
    return with_lasting(load_sections(WorkflowConfig, find_workflow(file), overrides), "workflow.storage")


def plan_workflow(
    file: str | Path, overrides: Sequence[str] = (), planned: Mapping[str, Any] | None = None
) -> Workflow:
    """Read a workflow file and build its stages; nothing is written.

    Args:
        file: a workflow file, or the name of a shipped one.
        overrides: `--section.field=value`.
        planned: what `Workflow.planned` returned where the workflow was started. Files from outside are then not read
            here; each stage that reads them compares them. None reads them all.
    Raises:
        UserError: no such file, a mistake in it, a file from outside that does not exist, or a workflow file that is
            not as planned.
    """
    where = str(file)
    config = load_workflow(file, overrides)
    if planned is not None and planned["config"] not in (None, config_to_dict(config)):
        raise UserError(f"{where} has changed since the workflow was started. Run the same command again.")
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> Stage:
        if planned is None:
            seen = {role: look(each) for role, each in stage.outside.items()}
        else:
            seen = {role: Seen(**each) for role, each in planned["seen"].get(stage.name, {}).items()}
        stages[stage.name] = stage = dataclasses.replace(stage, seen=seen)
        return stage

    data, gates = [], []
    for name, section in config.data.items():
        made = add(data_stage(name, section, where))
        data.append(made)
        gates.append(add(check_stage(name, made)))
        if config.advise is not None:
            add(advise_stage(name, config.advise, made, gates[-1]))
    tuned = None if config.tune is None else add(tune_stage(config.tune, config.train, data, where))
    has_teacher = run_config(config.train, placeholders(data), where).has_teacher
    ways = (False, True) if has_teacher and config.train.alone else (False,)
    trained = [
        add(train_stage(config.train, config.workflow.name, seed, data, tuned, gates, where, alone=alone))
        for seed in config.workflow.seeds
        for alone in ways
    ]
    scored = [add(evaluate_stage(config.evaluate, each, data)) for each in trained]
    study = None if config.study is None else add(study_stage(config.study, data, gates, where))
    exported = add(export_stage(config.export, trained, scored))
    advice = [stages[name] for name in stages if stages[name].kind in ("advise", "check")]
    evidence = [*data, *advice, *([tuned] if tuned else []), *([study] if study else [])]
    add(report_stage(config.workflow.name, [*evidence, *trained, *scored, exported]))
    return Workflow(config, stages)

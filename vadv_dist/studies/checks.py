"""Check a study before anything is trained: every variant can be built, and no run is overwritten."""

from dataclasses import dataclass

import torch

from vadv_dist.config import Config
from vadv_dist.errors import UserError
from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.runs.trained_on import SourceIdentity, TrainedOn
from vadv_dist.studies.plan import StudyPlan
from vadv_dist.tasks import build
from vadv_dist.training.splits import Splits

_MOST = 5  # runs that a message lists


@dataclass(frozen=True)
class CheckedStudy:
    """What the variants have in common, and what each is trained on.

    Attributes:
        task: their task.
        metrics: the metrics of the tables.
        trained_on: the data sets of each variant.
    """

    task: TaskDescription
    metrics: tuple[Metric, ...]
    trained_on: dict[str, TrainedOn]


def check_study(plan: StudyPlan) -> CheckedStudy:
    """Build every variant without weights, and compare the runs that exist with what they should be.

    Raises:
        UserError: a variant cannot be built; variants have different metrics; an unknown metric; or runs of an earlier
            version of the study would be needed under the same name.
    """
    tasks: dict[str, TaskDescription] = {}
    trained_on: dict[str, TrainedOn] = {}
    for name, config in plan.variants.items():
        try:
            tasks[name], trained_on[name] = _described(config)
        except UserError as error:
            raise UserError(f"{plan.where}, variant {name!r}: {error}") from None
    checked = _checked(plan, tasks, trained_on)
    _require_unchanged(plan, trained_on)
    return checked


def trained_study(plan: StudyPlan) -> CheckedStudy:
    """The same from the runs that are complete, without their data.

    Raises:
        UserError: no run is complete, or as `check_study`.
    """
    tasks: dict[str, TaskDescription] = {}
    for run in plan.runs:
        if run.variant not in tasks and (result := run.folder.result()) is not None:
            tasks[run.variant] = result.task
    if not tasks:
        raise UserError(f"No run of {plan.root} is complete yet, so there is nothing to report. See vadv watch.")
    return _checked(plan, {name: tasks[name] for name in plan.variants if name in tasks}, {})


def _checked(plan: StudyPlan, tasks: dict[str, TaskDescription], trained_on: dict[str, TrainedOn]) -> CheckedStudy:
    first, task = next(iter(tasks.items()))
    for name, other in tasks.items():
        if other.score != task.score or other.kind != task.kind:
            raise UserError(
                f"{plan.where}: variant {name!r} is scored by {other.score_metric.title} and {first!r} by "
                f"{task.score_metric.title}, which cannot be compared. Give each task a study of its own."
            )
    # A kind of student can have a metric that others lack.
    known = {metric.key: metric for other in tasks.values() for metric in other.metrics}
    wanted = [(key, "metrics") for key in plan.study.metrics]
    wanted += [(key, f"variant {name!r}, published") for name, v in plan.study.variants.items() for key in v.published]
    for key, where in wanted:
        if key not in known:
            raise UserError(f"{plan.where}, {where}: unknown metric {key!r} (available: {', '.join(known)}).")
    chosen = plan.study.metrics or tuple(known)
    return CheckedStudy(task, tuple(known[key] for key in chosen), trained_on)


def _described(config: Config) -> tuple[TaskDescription, TrainedOn]:
    sources = Splits.open(config).train.sources
    with torch.device("meta"):
        task = build(config, sources, weights=False)
    return task.description, TrainedOn(tuple(map(SourceIdentity.of, sources.datasets)), None)


def _require_unchanged(plan: StudyPlan, trained_on: dict[str, TrainedOn]) -> None:
    """Refuse runs with work whose configuration or data are no longer what the study asks for."""
    differing = []
    for run in plan.runs:
        folder = run.folder
        if not folder.config_path.is_file() or not folder.holds_work():
            continue
        record = folder.trained_on()
        if record is not None and not trained_on[run.variant].has_data_of(record):
            now, then = (" and ".join(map(str, each.data)) for each in (trained_on[run.variant], record))
            differing.append(f"{folder.root}: trained on {then}, now {now}")
        elif rows := folder.differing(run.config, record):
            differing.append(f"{folder.root}: {'; '.join(rows)}")
    if differing:
        more = f"\n  and {len(differing) - _MOST} more" if len(differing) > _MOST else ""
        listed = "\n  ".join(differing[:_MOST])
        raise UserError(
            f"{plan.where} has changed since these runs were trained:\n  {listed}{more}\n"
            "Give the changed variant another name, or the study another --name, or remove these folders to train "
            "them again. Runs that did not change are kept."
        )

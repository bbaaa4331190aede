"""Run a study: train what is missing as one queue, evaluate, compare, and write the documents."""

import contextlib
from collections.abc import Callable
from typing import Any

from rich.console import Console

from vadv_dist.config.search import SearchConfig
from vadv_dist.config.study import StudyConfig
from vadv_dist.errors import UserError, VadvError
from vadv_dist.reporting.page import FIGURES
from vadv_dist.runs.folder import FAILURE, run_lock
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import Location, sweep
from vadv_dist.studies.analysis import StudyResult, analyse
from vadv_dist.studies.checks import CheckedStudy, check_study, trained_study
from vadv_dist.studies.files import write_study_files
from vadv_dist.studies.plan import StudyPlan, StudyRun, make_data
from vadv_dist.studies.record import is_study, read_record, write_record
from vadv_dist.studies.scores import evaluate_study
from vadv_dist.tuning.events import Ended, Event, Failed
from vadv_dist.tuning.jobs import RunJob, drive
from vadv_dist.tuning.pools import pool_for, require_no_workers
from vadv_dist.tuning.progress import Progress

Say = Callable[[str], None]


def run_study(
    plan: StudyPlan,
    console: Console,
    *,
    use_ray: bool = True,
    retry_failed: bool = False,
    best_per_metric: bool = False,
    with_pdf: bool = False,
) -> StudyResult:
    """Start or resume a study, train every run to its end, and write its documents into its folder.

    A run that is complete is not trained again, and one that failed is not repeated and does not stop the others.

    Args:
        plan: the study.
        console: shows progress.
        use_ray: False trains one run after another in this process.
        retry_failed: whether to train failed runs again.
        best_per_metric: whether to show also what choosing a checkpoint per metric on the scored split would give.
        with_pdf: whether to write study.pdf, too.
    Raises:
        UserError: a mistake in the study file, runs that it would overwrite, or a folder that is something else.
    """
    _require_ours(plan)
    if not use_ray:
        for config in plan.variants.values():
            require_no_workers(config)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with run_lock(plan.root, ".lock"):
        for folder in make_data(plan):
            say(f"made {folder}")
        checked = check_study(plan)
        for folder in (plan.root, plan.root / FIGURES, *(run.folder.root for run in plan.runs)):
            sweep(folder, deep=False)
        write_record(plan, best_per_metric=best_per_metric)
        for run in plan.runs:
            if run.state == "failed" and (retry_failed or _is_outdated(run)):
                (run.folder.root / FAILURE).unlink(missing_ok=True)
        say(f"studying {plan.root}: {work_text(plan)}")
        train_study(plan, checked, say, use_ray=use_ray)
        result = result_of(plan, checked, best_per_metric=best_per_metric, say=say)
        write_study_files(result, plan.root, with_pdf=with_pdf)
    return result


def _require_ours(plan: StudyPlan) -> None:
    """Check that the study's folder is empty or a study, because a search and a run have folders in the same place."""
    root = plan.root
    if not root.is_dir() or not any(not path.name.startswith(".") for path in root.iterdir()):
        return
    # A study that was killed while it made its data has no record yet.
    is_made = plan.small and {path.name for path in root.iterdir()} <= {"data", ".lock"}
    if not is_study(root) and not is_made:
        what = "a run" if (root / "config.yaml").is_file() else "something else"
        raise UserError(
            f"{root} is {what}, not a study, and is not overwritten. Choose another --name, or another --run.name for "
            "--seeds."
        )


def dry_run(plan: StudyPlan) -> dict[str, Any]:
    """What a study would train, as plain values; nothing is written."""
    runs = [{"variant": run.variant, "seed": run.seed, "state": run.state} for run in plan.runs]
    return {"folder": str(plan.root), "summary": f"{plan.root}: {work_text(plan)}", "runs": runs}


def report_study(root: Location, console: Console) -> StudyResult:
    """Write the documents of a study anew from the runs that are complete, whether or not it has ended.

    Complete runs that were not evaluated are evaluated, which needs their data; no run is changed otherwise.

    Raises:
        UserError: the folder is not that of a study, or no run is complete.
    """
    plan, best_per_metric = read_record(root)
    result = result_of(plan, trained_study(plan), best_per_metric=best_per_metric, say=console.print, keep_all=True)
    write_study_files(result, root, with_pdf=(root / "study.pdf").is_file())
    return result


def result_of(
    plan: StudyPlan, checked: CheckedStudy, *, best_per_metric: bool, say: Say, keep_all: bool = False
) -> StudyResult:
    """Evaluate what is complete, and compute all numbers; `keep_all` removes no checkpoints."""
    study = plan.study
    scores = evaluate_study(plan, best_per_metric=best_per_metric, say=say, keep_all=keep_all)
    order = list(study.variants)
    scores.sort(key=lambda run: order.index(run.variant))
    published = {name: variant.published for name, variant in study.variants.items()}
    return StudyResult(
        title=study.title,
        about=study.about or "",
        name=plan.root.name,
        folder=str(plan.root),
        source=study.published.source if study.published else "",
        config=study.config,
        overrides={name: _changes(study, name) for name in order},
        reference=study.reference_name,
        seeds=study.seeds,
        splits=study.splits,
        metrics=checked.metrics,
        task=checked.task,
        scores=scores,
        analysis=analyse(scores, checked.metrics, splits=study.splits, asked=len(study.seeds), published=published),
        small=plan.small,
    )


def work_text(plan: StudyPlan) -> str:
    """How many trainings a study has, and how many are left."""
    states = [run.state for run in plan.runs]
    left = len(states) - states.count("complete") - states.count("failed")
    parts = [f"{states.count('complete')} complete"]
    parts += [f"{states.count('failed')} failed"] if "failed" in states else []
    parts += [f"{states.count('started')} started"] if "started" in states else []
    return (
        f"{counted(len(states), 'training')} ({counted(len(plan.variants), 'variant')} × "
        f"{counted(len(plan.study.seeds), 'seed')}), {', '.join(parts)}, {left} to train"
    )


def _changes(study: StudyConfig, name: str) -> dict[str, Any]:
    variant = study.variants[name]
    outside = {"predictions": variant.predictions} if variant.predictions is not None else {}
    return {**({"config": variant.config} if variant.config else {}), **variant.overrides, **outside}


def _is_outdated(run: StudyRun) -> bool:
    """Whether a failed run had another configuration, which cannot tell whether this one fails."""
    folder = run.folder
    return folder.config_path.is_file() and bool(folder.differing(run.config, folder.trained_on()))


def train_study(plan: StudyPlan, checked: CheckedStudy, say: Say, *, use_ray: bool) -> None:
    """Train what is left as one queue, with one pool for runs that need the same resources."""
    study = plan.study
    search = SearchConfig(
        concurrent=study.concurrent, cpus_per_trial=study.cpus_per_run, gpus_per_trial=study.gpus_per_run
    )
    groups: dict[tuple[int, bool | str], list[StudyRun]] = {}
    waiting = [run for run in plan.runs if run.state not in ("complete", "failed")]
    for run in waiting:
        trainer = run.config.trainer
        groups.setdefault((trainer.workers, trainer.use_gpu), []).append(run)
    total = len(plan.runs)
    progress = Progress(plan.root, {"total": total}, say, ended=total - len(waiting))

    def job(run: StudyRun) -> RunJob:
        trained_on = checked.trained_on[run.variant]
        return RunJob(run.name, [(0, run.config)], on_end, keep=True, trained_on=trained_on)

    def on_end(name: str, event: Event) -> None:
        if isinstance(event, Failed):
            say(f"{name}: failed ({event.kind}): {event.message.splitlines()[0][:160]}")
        elif isinstance(event, Ended):
            say(f"{name}: validation {event.result.task.score_metric.title} {event.result.score:.4f}")
        progress.ended(name, event)

    is_complete = False
    try:
        for runs in groups.values():
            with pool_for(runs[0].config, search, use_ray=use_ray, say=say) as pool:
                drive(pool, map(job, runs), on_change=progress.changed, say=say)
        is_complete = True
    finally:
        with contextlib.suppress(VadvError, OSError):
            progress.close(complete=is_complete)

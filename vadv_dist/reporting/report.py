"""Write `report.html`: the scores of a run's student, what its teacher gave it, and how it was trained."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from vadv_dist.reporting.class_sections import class_sections
from vadv_dist.reporting.clip_tables import Strips
from vadv_dist.reporting.comparison import Comparison, compare_records
from vadv_dist.reporting.curves import validation_points
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Page, Section, document
from vadv_dist.reporting.paper_section import paper_section
from vadv_dist.reporting.retrieval_sections import retrieval_sections, retrieval_summary
from vadv_dist.reporting.run_files import RUN_FILES, RunRecord, Scored, evaluate_command, read_run
from vadv_dist.reporting.sections import (
    OTHER_DATA,
    clip_sections,
    facts_section,
    metrics_section,
    other_data_section,
    sources_section,
    training_section,
)
from vadv_dist.reporting.vegas_section import vegas_section
from vadv_dist.reporting.words import clips, score
from vadv_dist.storage import Location, local_copy, location


def write_report(
    run: str | Location, *, compare: Sequence[str | Location] = (), strips: Strips | None = None
) -> Location:
    """Write a run's report into its folder, completely or not at all, and its pictures as files into `figures/`.

    Args:
        run: the run's folder. The report shows its test evaluation, or else its validation evaluation; without either,
            it says how to evaluate.
        compare: folders of other runs on the same data, such as the same student trained alone.
        strips: finds frames of the clips that are shown, such as `features.contact_sheet.clip_strips`; None shows none.
    Returns:
        Path of the page: one file that loads nothing and needs no script.
    Raises:
        UserError: a folder is missing, not a run or damaged; or a run to compare with was not evaluated on the same
            clips.
    """
    run = location(run)
    with contextlib.ExitStack() as copies:
        records = []
        for path in (run, *map(location, compare)):
            others = sorted(f"{OTHER_DATA}/{file.name}" for file in (path / OTHER_DATA).glob("*.json"))
            records.append(read_run(copies.enter_context(local_copy(path, (*RUN_FILES, *others))), str(path)))
        names = [record.name for record in records]
        records = [replace(r, name=r.uri) if names.count(r.name) > 1 else r for r in records]
        page = report_page(records[0], records[1:], strips)
    path = run / "report.html"
    page.write(path)
    return path


def report_page(run: RunRecord, others: Sequence[RunRecord] = (), strips: Strips | None = None) -> Page:
    """The page that `write_report` writes: the same bytes for the same files."""
    evaluation = run.evaluation
    if evaluation is None:
        header = _unevaluated_header(run, others)
        sections = [other_data_section(run), training_section(run), facts_section(run)]
    else:
        comparisons = [_compared(run, other, evaluation.split) for other in others]
        header = _header(run, evaluation, comparisons)
        published, of_clips = _sections_of_labels(evaluation, strips)
        sections = [
            metrics_section(run, evaluation, comparisons),
            sources_section(evaluation),
            published(run, evaluation),
            other_data_section(run),
            training_section(run),
            *of_clips(evaluation, comparisons),
            facts_section(run),
        ]
    kind = "trained with its teacher" if run.config.has_teacher else "trained alone"
    over = tag("p", tag("b", run.name), f" · {run.config.student.title} {kind}", class_="over")
    missing = "" if run.result is not None else tag("p", "This run is not complete (no result.json).", class_="notice")
    return document(f"{run.name} · vadv report", join(over, header, missing), sections, "vadv report")


def _sections_of_labels(
    evaluation: Scored, strips: Strips | None
) -> tuple[Callable[[RunRecord, Scored], Section | None], Callable[[Scored, Sequence[Comparison]], Sequence[Section]]]:
    """The section on published results and those on clips that fit what the student predicts."""
    if evaluation.retrieves:
        return vegas_section, retrieval_sections
    if evaluation.classifies:
        return lambda run, evaluation: None, partial(class_sections, strips=strips)
    return paper_section, partial(clip_sections, strips=strips)


def _compared(run: RunRecord, other: RunRecord, split: str) -> Comparison:
    """Compare so that the gain is the teacher's, or this run's if both or neither had one."""
    if other.config.has_teacher and not run.config.has_teacher:
        return compare_records(run, other, split)
    return compare_records(other, run, split)


def _header(run: RunRecord, evaluation: Scored, comparisons: Sequence[Comparison]) -> Markup:
    """Headline, scores and gains in words, and caveats."""
    headline, lede = (retrieval_summary if evaluation.retrieves else _summary)(evaluation)
    parts = [tag("h1", headline), tag("p", lede, class_="lede")]
    parts += [tag("p", comparison.sentence, class_="lede") for comparison in comparisons]
    if comparisons:
        caveats = dict.fromkeys(comparison.caveat for comparison in comparisons)
        differing = (
            f"{c.before.name} and {c.after.name} also differ in {', '.join(c.differing)}."
            for c in comparisons
            if c.differing
        )
        parts.append(tag("p", " ".join((*caveats, *differing)), class_="caveat"))
    parts += [tag("p", remark, class_="notice") for remark in evaluation.document.remarks]
    if evaluation.split != "test":
        why = "These are the validation clips that selected the checkpoint, so the scores are too optimistic. "
        command = tag("code", evaluate_command(run.uri, "test"))
        parts.append(tag("p", why, command, " scores the test split.", class_="notice"))
    return join(*parts)


def _summary(evaluation: Scored) -> tuple[str, str]:
    """Headline and a sentence on the scores of a student that reads words."""
    task, metric = evaluation.task, evaluation.task.score_metric
    student, *teacher = (
        score(evaluation.document.metrics[output.name].get(task.score), percent=metric.percent)
        for output in evaluation.outputs
    )
    in_label_units = metric.unit == "label"
    headline = f"From the words alone, {'off by' if in_label_units else metric.title} {student}"
    lede = f"{metric.title} of the student on {clips(len(evaluation.predictions), evaluation.split)}"
    lede += ", in label units" if in_label_units else ""
    pairs = zip(teacher, evaluation.outputs[1:], strict=True)
    if against := " and ".join(f"{value} for the {output.title.lower()}" for value, output in pairs):
        lede += f", compared with {against} of the teacher, which watches the clip"
    return headline, f"{lede}."


def _unevaluated_header(run: RunRecord, others: Sequence[RunRecord]) -> Markup:
    metric, title = run.task.score_metric, "Not evaluated yet"
    if scores := [value for _, value in validation_points(run, run.task.student)]:
        title += f"; validation {metric.title} {score(min(scores, key=metric.cost), percent=metric.percent)}"
    command = tag("code", evaluate_command(run.uri, "test"))
    notice = tag("p", command, " adds metrics, plots of the predictions and the worst clips.", class_="notice")
    waiting = tag("p", "The other runs are compared once this run is evaluated.", class_="caveat") if others else ""
    return join(tag("h1", title), notice, waiting)

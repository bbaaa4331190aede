"""Write `report.html`: what a run's student reads, what its teacher gave it, and how it came about."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from vadv_dist import __version__
from vadv_dist.reporting.comparison import Comparison, compare_records
from vadv_dist.reporting.header import header
from vadv_dist.reporting.markup import join, tag
from vadv_dist.reporting.other_data import other_data_files, other_data_section
from vadv_dist.reporting.page import Page, document
from vadv_dist.reporting.paper_section import paper_section
from vadv_dist.reporting.run_files import RUN_FILES, RunRecord, read_run
from vadv_dist.reporting.sections import (
    clip_sections,
    facts_section,
    metrics_section,
    sources_section,
    training_section,
)
from vadv_dist.storage import Location, local_copy, location


def write_report(run: str | Location, *, compare: Sequence[str | Location] = ()) -> Location:
    """Write a run's report into its folder, whole or not at all, and its pictures as files into `figures/`.

    Args:
        run: the run's folder. Its test evaluation is shown where there is one, else its validation's, else the page
            says how to get one.
        compare: folders of other runs on the same data, such as the same student trained alone.
    Returns:
        Path of the page: one file that loads nothing and needs no script.
    Raises:
        UserError: a folder is missing, not a run or damaged; or a run to compare with was not evaluated on the same
            clips.
    """
    run = location(run)
    with contextlib.ExitStack() as copies:
        records = [
            read_run(copies.enter_context(local_copy(path, (*RUN_FILES, *other_data_files(path)))), str(path))
            for path in (run, *map(location, compare))
        ]
        names = [record.name for record in records]
        records = [replace(record, called=record.uri if names.count(record.name) > 1 else None) for record in records]
        page = report_page(records[0], records[1:])
    path = run / "report.html"
    page.write(path)
    return path


def report_page(run: RunRecord, others: Sequence[RunRecord] = ()) -> Page:
    """The page that `write_report` writes: the same bytes for the same files."""
    evaluation = run.evaluation
    comparisons = [_compared(run, other, evaluation.split) for other in others] if evaluation else []
    elsewhere = other_data_section(run)
    on_other_data = [] if elsewhere is None else [elsewhere]
    if evaluation is None:
        sections = [*on_other_data, training_section(run), facts_section(run)]
    else:
        paper = paper_section(run, evaluation)
        sections = [
            metrics_section(run, evaluation, comparisons),
            *([sources_section(evaluation)] if len(evaluation.document.sources) > 1 else []),
            *([paper] if paper else []),
            *on_other_data,
            training_section(run),
            *clip_sections(evaluation, comparisons),
            facts_section(run),
        ]
    footer = join("Written by ", tag("code", "vadv report"), f" of vadv {__version__}. This page loads nothing.")
    return document(f"{run.name} · vadv report", header(run, others, comparisons), sections, footer)


def _compared(run: RunRecord, other: RunRecord, split: str) -> Comparison:
    """Compare so that the gain told is the teacher's, or this run's where both had one or neither."""
    if other.has_teacher and not run.has_teacher:
        return compare_records(run, other, split)
    return compare_records(other, run, split)

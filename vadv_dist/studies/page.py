"""study.html: the table of a study, its pictures, and what every variant is compared with."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from vadv_dist.evaluation.description import Metric
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Page, Section, document, folded, grid
from vadv_dist.reporting.pictures import Picture
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import SPLITS
from vadv_dist.studies.analysis import Cell, StudyResult
from vadv_dist.studies.pictures import curve_pictures, order_picture, strip_picture
from vadv_dist.studies.tables import (
    PAIR_HEADINGS,
    heading,
    interval_text,
    mean_text,
    notes,
    pair_note,
    pair_rows,
    table,
)

_SHOWN = 2  # pictures that are not folded
_STATES = {"missing": "not trained", "started": "not complete"}


def study_page(result: StudyResult) -> Page:
    """The page; the same runs give the same bytes."""
    sections = [*score_sections(result), _problems_section(result), _runs_section(result)]
    return document(f"{result.title} · vadv study", _header(result), sections, "vadv study")


def score_sections(result: StudyResult) -> list[Section | None]:
    """Tables and pictures of the scores, comparisons with the reference, and learning curves."""
    sections: list[Section | None] = []
    for split in result.splits:
        sections += [_table_section(result, split), _pairs_section(result, split)]
    return [*sections, _curves_section(result)]


def _header(result: StudyResult) -> Markup:
    states = [run.state for run in result.scores]
    done = states.count("complete") + states.count("outside")
    kind = "a study at small scale, on synthetic data" if result.small else "a study"
    counts = f"{len(result.variants)} variants, {len(result.seeds)} seeds, {done} of {len(states)} runs complete."
    return join(
        tag("p", tag("b", result.name), f" · {kind}", class_="over"),
        tag("h1", result.title),
        tag("p", f"{result.about} {counts}".strip(), class_="lede"),
        tag("p", " ".join(notes(result)), class_="caveat"),
    )


def _table_section(result: StudyResult, split: str) -> Section:
    columns, rows = table(result, split, _cell)
    body = [(None, [_named(name, result), *cells]) for name, *cells in rows]
    pictures = _drawn(strip_picture(result, split, metric) for metric in result.metrics)
    title = f"Scores on the {SPLITS[split]} split"
    return Section(
        f"scores-{split}",
        title,
        "The first line of a cell is mean ± standard deviation over seeds, the second the 95 % interval.",
        join(plain_table(title, columns, body), grid(pictures[:_SHOWN], "wide"), _folded_grid(pictures[_SHOWN:])),
        pictures,
    )


def _named(variant: str, result: StudyResult) -> str:
    return join(variant, tag("small", "reference")) if variant == result.reference else variant


def _cell(cell: Cell, metric: Metric) -> str:
    interval = tag("small", interval_text(cell.interval, metric)) if cell.interval else ""
    return join(mean_text(cell, metric), interval)


def _pairs_section(result: StudyResult, split: str) -> Section | None:
    tables: list[Markup] = []
    pictures = _drawn(order_picture(result, split, metric) for metric in result.metrics)
    for number, metric in enumerate(result.metrics):
        rows = list(pair_rows(result, split, metric))
        if not rows:
            continue
        shown = plain_table(f"Differences in {metric.title}", PAIR_HEADINGS, [(None, row) for row in rows])
        tables.append(join(tag("h3", heading(metric)), shown) if number == 0 else folded(heading(metric), shown))
    if not tables:
        return None
    return Section(
        f"pairs-{split}",
        f"Differences on the {SPLITS[split]} split",
        pair_note(result),
        join(*tables, grid(pictures[:_SHOWN], "wide"), _folded_grid(pictures[_SHOWN:])),
        pictures,
    )


def _curves_section(result: StudyResult) -> Section | None:
    pictures = curve_pictures(result)
    if not pictures:
        return None
    metric = result.task.score_metric
    note = (
        f"{heading(metric)} of the student on the validation split after each epoch. Thin: seeds; bold: their mean; "
        f"dashed: {result.reference}."
    )
    return Section("curves", "Learning curves", note, grid(pictures), pictures)


def _problems_section(result: StudyResult) -> Section | None:
    if not result.problems:
        return None
    listed = (tag("li", tag("b", name), f": {why}") for name, why in result.problems)
    note = "These runs have no scores. vadv study --retry-failed trains failed runs again."
    return Section("failed", "Failed runs", note, tag("ul", *listed, class_="notes"))


def _runs_section(result: StudyResult) -> Section:
    changes = [
        (
            None,
            [
                name,
                ", ".join(f"{field}: {_as_yaml(value)}" for field, value in result.overrides[name].items())
                or "nothing",
            ],
        )
        for name in result.variants
    ]
    first = result.splits[0]
    metric = result.metrics[0]
    rows = []
    for run in result.scores:
        value = run.values.get(first, {}).get(metric.key)
        shown = "" if value is None else f"{100 * value:.1f}" if metric.percent else f"{value:.3f}"
        state = _STATES.get(run.state, run.state)
        rows.append((None, [run.name, state, shown, tag("code", str(run.folder))]))
    columns = ("Run", "State", f"{heading(metric)}, {first}", "Folder")
    return Section(
        "runs",
        "Variants and runs",
        f"What each variant changes in {result.config or 'the default configuration'} and the study’s overrides:",
        join(
            plain_table("Variants", ("Variant", "Changes"), changes),
            folded(f"All {len(rows)} runs", plain_table("Runs", columns, rows)),
        ),
    )


def _as_yaml(value: Any) -> str:
    """A value as it is written in a study file, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("\n...\n").strip()


def _folded_grid(pictures: Sequence[Picture]) -> Markup:
    return folded("The other metrics", grid(pictures, "wide")) if pictures else Markup()


def _drawn(pictures: Iterable[Picture | None]) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]

"""The sections of a page on a retrieval student."""

from collections.abc import Sequence

from vadv_dist.evaluation.retrieval import DIRECTIONS, PHRASES
from vadv_dist.reporting.comparison import Comparison
from vadv_dist.reporting.markup import tag
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.retrieval_examples import MAX_QUERIES, examples_list
from vadv_dist.reporting.retrieval_figures import (
    FIRST,
    MAX_CLASSES,
    by_chance,
    class_picture,
    confusion_of_first,
    curve_pictures,
)
from vadv_dist.reporting.run_files import FloatArray, Scored
from vadv_dist.reporting.style import role_of
from vadv_dist.reporting.words import SPLITS, clips, score, student_of


def retrieval_sections(evaluation: Scored, comparisons: Sequence[Comparison]) -> list[Section]:
    """What was found: curves, classes, and example queries."""
    others = [(student_of(run), theirs) for run, theirs in (c.other_than(evaluation) for c in comparisons)]
    many = len(evaluation.task.classes) > MAX_CLASSES
    hardest = f" The {MAX_CLASSES} classes with the lowest values are shown." if many else ""
    queries = f" {MAX_QUERIES} classes are shown." if len(evaluation.task.classes) > MAX_QUERIES else ""
    curves = [*curve_pictures(evaluation, others), class_picture(evaluation)]
    confused = confusion_of_first(evaluation)
    lists = [
        tag("details", tag("summary", title), examples_list(evaluation, direction), open="" if not number else None)
        for number, (direction, title) in enumerate(PHRASES.items())
    ]
    return [
        Section(
            "precision",
            "Precision",
            "Share of items with the query’s class among those up to a recall: the highest at that recall or a higher "
            f"one, as a mean over queries. By class of the query, with its number of clips.{hardest}",
            grid(curves, "wide"),
            curves,
        ),
        Section(
            "first-classes",
            f"Classes among the first {FIRST}",
            f"Of the first {FIRST} items of each query, the share in percent of each class (column) by class of the "
            f"query (row). Outlined cells are right.{hardest}",
            grid(confused, "wide"),
            confused,
        ),
        Section(
            "examples",
            "Example retrievals",
            f"One query of each class: the {SPLITS[evaluation.split]} clip whose average precision is the median of "
            f"its class, and the first {FIRST} items of the other modality.{queries}",
            tag("div", *lists, class_="examples"),
        ),
    ]


def score_rows(evaluation: Scored) -> list[tuple[str, str, FloatArray]]:
    """Title, role and average precision on each clip of the student: both directions, then each."""
    role = role_of(evaluation.task, evaluation.task.student)
    return [("Student", role, evaluation.clip_scores)] + [
        (f"Student, {PHRASES[name]}", role, evaluation.precisions[name]) for name in DIRECTIONS
    ]


def chance_row(evaluation: Scored) -> dict[str, float]:
    """mAP of a random ranking, by title."""
    return {"Random ranking": by_chance(evaluation)}


def retrieval_summary(evaluation: Scored) -> tuple[str, str]:
    """Headline, and a sentence on scores and chance."""
    task, metrics = evaluation.task, evaluation.document.metrics
    own = metrics[task.student.name]
    directions = " and ".join(f"{score(own.get(f'map_{name}'), percent=False)} {PHRASES[name]}" for name in DIRECTIONS)
    lede = (
        f"{task.score_metric.title} of the student on {clips(len(evaluation.predictions), evaluation.split)} of "
        f"{len(task.classes)} classes: {directions}; a random ranking has {by_chance(evaluation):.3f}."
    )
    known = [
        f"{score(metrics[output.name].get('accuracy'), percent=True)} by its {output.title.lower()}"
        for output in evaluation.outputs[1:]
    ]
    if known:
        lede += f" The teacher, which watches the clip, names the right class of {' and '.join(known)}."
    return f"Audio and video find each other with mAP {score(own.get(task.score), percent=False)}", lede

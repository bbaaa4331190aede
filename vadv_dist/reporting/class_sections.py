"""The sections of a page on a student that predicts classes."""

from collections.abc import Sequence

import numpy as np

from vadv_dist.evaluation.classification import (
    ACCURACY,
    CLASS_NOTES,
    CLASS_TITLES,
    class_scores,
    confusion,
    predicted_classes,
)
from vadv_dist.evaluation.description import Output
from vadv_dist.reporting.clip_tables import Strips
from vadv_dist.reporting.comparison import Comparison
from vadv_dist.reporting.error_sections import error_sections
from vadv_dist.reporting.figures import draw_matrix
from vadv_dist.reporting.markup import Markup
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.pictures import WIDE, Picture
from vadv_dist.reporting.run_files import FloatArray, Scored
from vadv_dist.reporting.style import PALETTE
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import score


def class_sections(
    evaluation: Scored, comparisons: Sequence[Comparison], strips: Strips | None = None
) -> list[Section]:
    """Which classes were predicted for which, scores by class, and errors (`error_sections`)."""
    confused = [_confusion(evaluation, output) for output in evaluation.outputs[:2]]
    return [
        Section(
            "classes",
            "Classes",
            "Clips by class of the label (row) and of the prediction (column). Shades are shares of a row; outlined "
            "cells are correct.",
            grid(confused, "wide"),
            confused,
        ),
        Section(
            "by-class",
            "By class",
            f"Of the student. {CLASS_NOTES}",
            _scores_table(evaluation),
        ),
        *error_sections(evaluation, strips),
    ]


def _known(evaluation: Scored, output: Output) -> tuple[FloatArray, FloatArray]:
    """Probabilities [R, C] and labels [R] of the clips that have a prediction."""
    probability = evaluation.predictions.values[output.name]
    rows = ~np.isnan(probability).any(axis=1)
    return probability[rows], evaluation.predictions.label[rows]


def _confusion(evaluation: Scored, output: Output) -> Picture:
    probability, label = _known(evaluation, output)
    names, title = evaluation.task.classes, output.title
    counts = confusion(predicted_classes(probability), label, len(names))
    picture = Picture(f"classes-{output.name}", title, (WIDE[0], 60 + 36 * len(names)))
    hover = [
        f"label {names[row]}, {title.lower()} {names[column]}: {count} of {counts[row].sum()}"
        for (row, column), count in np.ndenumerate(counts)
    ]
    draw_matrix(picture, counts.astype(np.float64), names, [str(count) for count in counts.flat], hover)
    picture.axes.set_xlabel(f"{title.lower()} (clips)", color=PALETTE["quiet"], fontsize=11, labelpad=3)
    value = evaluation.document.metrics[output.name].get(ACCURACY.key)
    picture.note = f"{ACCURACY.title} {score(value, percent=True)}"
    hits = f"{np.trace(counts)} of {len(label)}"
    picture.label = f"Clips by class of label and of {title.lower()}: {hits} in the same class."
    return picture


def _scores_table(evaluation: Scored) -> Markup:
    probability, label = _known(evaluation, evaluation.task.student)
    names = evaluation.task.classes
    counts = confusion(predicted_classes(probability), label, len(names))
    found = class_scores(counts)
    rows = [
        (
            None,
            [
                names[one],
                *(f"{values[one]:.1%}" for values in (found.precision, found.recall, found.f1)),
                f"{found.support[one]:,}",
                f"{counts[:, one].sum():,}",
            ],
        )
        for one in range(len(names))
    ]
    return plain_table("By class", ("Class", *CLASS_TITLES, "Clips", "Predicted"), rows)

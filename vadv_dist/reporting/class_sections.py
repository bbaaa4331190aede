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
from vadv_dist.reporting.comparison import Comparison
from vadv_dist.reporting.figures import draw_matrix
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.pictures import WIDE, Picture
from vadv_dist.reporting.run_files import FloatArray, Scored
from vadv_dist.reporting.style import PALETTE
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import SPLITS, score

_WORST = 10
# Bars of the picture of probabilities.
_BINS = 10


def class_sections(evaluation: Scored, comparisons: Sequence[Comparison]) -> list[Section]:
    """Which classes were predicted for which, scores by class, how far probabilities hold, and the worst clips."""
    confused = [_confusion(evaluation, output) for output in evaluation.outputs[:2]]
    reliability = _reliability(evaluation)
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
        Section(
            "probabilities",
            "Probabilities",
            "Clips by the probability of the predicted class: how many of them are right. On the dashed line, a "
            "probability of 70 % is right for 70 % of its clips.",
            grid([reliability], "one"),
            [reliability],
        ),
        Section(
            "worst",
            "Worst predictions",
            f"The {min(_WORST, len(evaluation.predictions))} {SPLITS[evaluation.split]} clips whose class the student "
            "gives the lowest probability.",
            _worst_table(evaluation),
        ),
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


def _reliability(evaluation: Scored) -> Picture:
    """Share of right predictions by the probability of the predicted class."""
    probability, label = _known(evaluation, evaluation.task.student)
    highest, right = probability.max(axis=1), predicted_classes(probability) == label
    bins = np.minimum((highest * _BINS).astype(int), _BINS - 1)
    picture = Picture("probabilities", "Student", WIDE)
    picture.frame((0.0, 1.0), (0.0, 1.0), x_label="probability of the predicted class")
    picture.line([(0.0, 0.0), (1.0, 1.0)], "ink", width=1, dashed=(0, (4, 3)))
    gap, points, titles = 0.0, [], []
    for one in np.unique(bins):
        mine = bins == one
        mean, share = float(highest[mine].mean()), float(right[mine].mean())
        gap += mine.mean() * abs(mean - share)
        points.append((mean, share))
        titles.append(f"{int(mine.sum())} clips with a probability of about {mean:.0%}: {share:.0%} are right")
    picture.line(points, "o1")
    picture.dots(points, "o1", titles, radius=4)
    picture.note = f"mean gap {gap:.1%} (expected calibration error, {_BINS} bins)"
    picture.label = f"Share of right predictions by probability: {picture.note}."
    return picture


def _worst_table(evaluation: Scored) -> Markup:
    predictions, names = evaluation.predictions, evaluation.task.classes
    label = predictions.label.astype(int)
    own = predictions.values[evaluation.task.student.name]
    of_label = own[np.arange(len(label)), label]
    rows: list[tuple[str | None, list[str]]] = []
    for row in sorted(range(len(label)), key=lambda row: (of_label[row], predictions.clip_id[row]))[:_WORST]:
        words = join(tag("q", predictions.text[row]), tag("small", predictions.clip_id[row]))
        shown = []
        for output in evaluation.outputs:
            values = predictions.values[output.name][row]
            best = int(np.argmax(values))
            shown.append("–" if np.isnan(values).any() else f"{names[best]} ({values[best]:.0%})")
        rows.append((None, [words, names[label[row]], *shown, tag("b", f"{of_label[row]:.1%}")]))
    columns = ("Words", "Label", *(output.title for output in evaluation.outputs), "Probability of the label")
    return plain_table("Worst predictions", columns, rows)

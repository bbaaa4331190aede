"""Plots of an evaluation: scores, predictions and labels, distributions of logits, classes."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vadv_dist.evaluation.description import Metric, Output
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.reporting.pictures import WIDE, Picture, number, shortened
from vadv_dist.reporting.run_files import FloatArray, Scored
from vadv_dist.reporting.style import PALETTE, role_of
from vadv_dist.reporting.words import MISSING, clips, decimals, score

# More points make a page slow to draw; a sample of them shows the same cloud.
MAX_POINTS = 3000

# With more classes, a matrix of them has smaller text and upright names.
_MANY_CLASSES = 7

# Bars over the label range, each as wide as the steps of MOSI's labels (0.2 of 6), and some on both sides of it.
_BARS, _OUTER_BARS = 30, 3


def score_picture(
    rows: Sequence[tuple[str, str, FloatArray]], computed: Mapping[str, float], metric: Metric
) -> Picture:
    """The score metric with intervals over clips, then computed values of it, on one scale.

    Args:
        rows: title, role and the metric on each clip, [R], of each student or output.
        computed: values that were not measured, such as the best possible ones, by title.
        metric: the metric.
    """
    from vadv_dist.evaluation.paired import paired_bootstrap

    measured = []
    for _, _, values in rows:
        found = values[np.isfinite(values)]
        measured.append(paired_bootstrap(found, np.zeros_like(found), seed=0, num_samples=2000) if len(found) else None)
    ends = [*computed.values(), *(end for mean in measured if mean for end in mean)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    room = max((high - low) * 0.1, 0.02)
    names = [*(name for name, *_ in rows), *computed]
    intervals = [f"{mean.mean:.3f}  ({mean.low:.3f} … {mean.high:.3f})" if mean else MISSING for mean in measured]
    listed = [*intervals, *(f"{value:.3f}  (computed)" for value in computed.values())]
    picture = Picture("errors" if metric.unit == "label" else "scores", metric.heading, (WIDE[0], 34 + 42 * len(names)))
    picture.rows(names, listed, (low - room, high + room))
    for at, ((name, role, _), mean) in enumerate(zip(rows, measured, strict=True)):
        if mean:
            picture.line([(mean.low, at), (mean.high, at)], role, width=2, dashed="-", alpha=0.6)
            text = f"{name}: {mean.mean:.3f}, 95 % interval {mean.low:.3f} … {mean.high:.3f}"
            picture.dots([(mean.mean, at)], role, [text], radius=5)
    for at, (name, value) in enumerate(computed.items(), len(rows)):
        picture.dots([(value, at)], "quiet", [f"{name}: {value:.3f}"], radius=6, marker="|")
    shown = (f"{name} {value}" for name, value in zip(names, intervals, strict=False))
    picture.label = f"{metric.heading} with 95 % intervals: {', '.join(shown)}."
    return picture


def scatter_pictures(evaluation: Scored) -> list[Picture]:
    """Predictions against labels, one picture per output."""
    low, high = evaluation.scale.low, evaluation.scale.high
    room, widest = (high - low) / 20, (high - low) / 2
    logits = evaluation.predictions.values.values()
    # One scale for all, limited so that a few extreme predictions cannot squeeze it: those are drawn on its edge.
    bottom = max(min(low, *map(np.nanmin, logits)) - room, low - widest)
    top = min(max(high, *map(np.nanmax, logits)) + room, high + widest)
    return [_scatter(evaluation, output, (low - room, high + room), (bottom, top)) for output in evaluation.outputs]


def histogram_pictures(evaluation: Scored, others: Sequence[tuple[str, FloatArray]] = ()) -> list[Picture]:
    """Distribution of the labels, then of each logit with the labels' outline.

    Args:
        evaluation: the run's.
        others: name and logits of the students of other runs, [R] each.
    """
    predictions, edges = evaluation.predictions, bar_edges(evaluation.scale)
    outline = bar_shares(predictions.label, edges)
    panels = [("labels", "Label", "label", predictions.label)]
    for output in evaluation.outputs:
        panels.append((output.name, output.title, role_of(evaluation.task, output), predictions.values[output.name]))
    panels += [(f"other-{at}", name, "other", logits) for at, (name, logits) in enumerate(others, 1)]
    return [_histogram(*panel, edges, outline) for panel in panels]


def bar_edges(scale: LabelScale) -> FloatArray:
    """Edges of a histogram's bars, which are centred on the steps of labels, so that no label lies on an edge."""
    indices = np.arange(-_OUTER_BARS, _BARS + _OUTER_BARS) + 0.5
    return scale.low + indices * (scale.high - scale.low) / _BARS


def bar_shares(values: FloatArray, edges: FloatArray) -> FloatArray:
    """Share of the finite values in each bar; the outermost bars include all values beyond them."""
    finite = values[np.isfinite(values)]
    counts, _ = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)
    return counts / len(finite)


def confusion_pictures(evaluation: Scored) -> list[Picture]:
    """Clips by class of the label (row) and of the prediction (column), for the first two outputs."""
    return [_confusion(evaluation, output) for output in evaluation.outputs[:2]]


def _scatter(evaluation: Scored, output: Output, x: tuple[float, float], y: tuple[float, float]) -> Picture:
    scale, label, logits = evaluation.scale, evaluation.predictions.label, evaluation.predictions.values[output.name]
    rows = np.flatnonzero(np.isfinite(logits)).tolist()
    shown = sorted(random.Random(0).sample(rows, MAX_POINTS)) if len(rows) > MAX_POINTS else rows
    picture = Picture(f"predictions-{output.name}", output.title, (320, 300))
    picture.frame(x, y, x_label="label", ticks=(7, 8))
    titles = [_clip(evaluation, row, output) for row in shown]
    points = [(label[row], logits[row]) for row in shown]
    picture.dots(points, role_of(evaluation.task, output), titles, radius=2.6, alpha=0.42)
    picture.line([(scale.low, scale.low), (scale.high, scale.high)], "ink", width=1, dashed=(0, (4, 3)))
    values = evaluation.document.metrics[output.name]
    first_two = evaluation.task.metrics[:2]
    scores = [f"{m.title} {score(values.get(m.key), percent=m.percent)}" for m in first_two]
    picture.label = f"{output.title} against label for {clips(len(shown))}: {', '.join(scores)}."
    picture.note = " · ".join([*scores, *([] if shown is rows else [f"a sample of {len(shown)}"])])
    return picture


def _clip(evaluation: Scored, row: int, output: Output) -> str:
    """The title of a clip's point, with its words for the student, which reads only them."""
    predictions = evaluation.predictions
    title = f"{predictions.clip_id[row]}: label {decimals(predictions.label[row])}"
    title += f", {output.title.lower()} {predictions.values[output.name][row]:.2f}".replace("-", "−")
    is_student = output is evaluation.task.student
    return f"{title}\n{shortened(predictions.text[row], 120)}" if is_student else title


def _histogram(name: str, title: str, role: str, values: FloatArray, edges: FloatArray, outline: FloatArray) -> Picture:
    shares, width = bar_shares(values, edges), edges[1] - edges[0]
    picture = Picture(f"distribution-{name}", title, (320, 170))
    top = max(*shares, *outline) * 105
    picture.frame((edges[0], edges[-1]), (0.0, top), x_label="share of clips (%) by value", ticks=(7, 4))
    for middle, share in zip((edges[:-1] + edges[1:]) / 2, shares, strict=True):
        if share:
            [bar] = picture.axes.bar(middle, 100 * share, 0.92 * width, color=PALETTE[role], alpha=0.8)
            picture.title(bar, [f"around {decimals(round(middle, 3))}: {share:.1%}"])
    if role != "label":
        picture.axes.stairs(100 * outline, edges, color=PALETTE["ink"], linewidth=1.1)
    mean, spread = round(float(np.nanmean(values)), 2) + 0.0, np.nanstd(values)
    picture.note = f"mean {mean:.2f} · standard deviation {spread:.2f}".replace("-", "−")
    ends = f"from {number(np.nanmin(values))} to {number(np.nanmax(values))}"
    picture.label = f"Histogram of {title.lower()} {ends}: {picture.note}."
    return picture


def _confusion(evaluation: Scored, output: Output) -> Picture:
    label, logits = evaluation.predictions.label, evaluation.predictions.values[output.name]
    classes, metric, _ = evaluation.scale.classes_of(label)
    predicted = np.isfinite(logits)
    counts, size, title = classes.confusion(logits[predicted], label[predicted]), len(classes.names), output.title
    picture = Picture(f"classes-{output.name}", title, (WIDE[0], 60 + 36 * size))
    pairs = [f"label {row}, {title.lower()} {column}" for row in classes.names for column in classes.names]
    hover = [
        f"{pair}: {count} of {counts[at // size].sum()}"
        for at, (pair, count) in enumerate(zip(pairs, counts.flat, strict=True))
    ]
    draw_matrix(picture, counts.astype(np.float64), classes.names, [str(count) for count in counts.flat], hover)
    picture.axes.set_xlabel(f"{title.lower()} (clips)", color=PALETTE["quiet"], fontsize=11, labelpad=3)
    value = None if metric is None else evaluation.document.metrics[output.name].get(metric.key)
    picture.note = "" if metric is None or value is None else f"{metric.title} {score(value, percent=True)}"
    hits = f"{np.trace(counts)} of {predicted.sum()}"
    picture.label = f"Clips by class of label and of {title.lower()}: {hits} in the same class."
    return picture


def draw_matrix(
    picture: Picture,
    values_CC: FloatArray,
    names: Sequence[str],
    texts: Sequence[str],
    hover: Sequence[str],
    *,
    row_label: str = "label",
) -> None:
    """Cells by class of the label (row) and of a prediction (column), shaded by their share of the row.

    Args:
        picture: what to draw on.
        values_CC: counts or shares; NaN in a row without clips.
        names: of the classes, [C].
        texts, hover: text and hover title of each cell, row by row, [C * C].
        row_label: what the rows are.
    """
    size = len(names)
    axes, names = picture.axes, [shortened(name, 18) for name in names]
    picture.frame((-0.5, size - 0.5), (size - 0.5, -0.5))
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    many = size > _MANY_CLASSES
    axes.set_xticks(range(size), names, rotation=90 if many else 0)
    axes.set_yticks(range(size), names)
    axes.set_ylabel(row_label, color=PALETTE["quiet"], fontsize=11)
    font = 9 if many else 12
    axes.tick_params(length=0, labelsize=10 if many else 12, labelcolor=PALETTE["ink"])
    for at, ((row, column), value) in enumerate(np.ndenumerate(np.nan_to_num(values_CC))):
        right = row == column
        [cell] = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["grid"])
        if value > 0:
            shade = 0.7 * math.sqrt(value / np.nansum(values_CC[row]))
            [cell] = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["o1"], alpha=shade)
        picture.title(cell, [hover[at]])
        if right:
            axes.bar(column, 0.9, 0.92, bottom=row - 0.45, fill=False, edgecolor=PALETTE["ink"], linewidth=1.5)
        look: dict[str, Any] = {"color": PALETTE["ink" if value else "label"], "weight": "bold" if right else "normal"}
        picture.text(column, row, texts[at], ha="center", va="center", fontsize=font, **look)

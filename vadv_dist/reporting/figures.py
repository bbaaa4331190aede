"""Plots of an evaluation: scores, predictions and labels, distributions of logits, classes."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vadv_dist.evaluation.description import Output
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.reporting.pictures import WIDE, Picture, number, shortened
from vadv_dist.reporting.run_files import FloatArray, Predictions, Scored
from vadv_dist.reporting.style import PALETTE, role_of
from vadv_dist.reporting.words import clips, decimals, score

# More points make a page slow to draw; a sample of them shows the same cloud.
MAX_POINTS = 3000

# Bars over the label range, each as wide as the steps of MOSI's labels (0.2 of 6), and some on both sides of it.
_BARS, _OUTER_BARS = 30, 3


def error_picture(rows: Sequence[tuple[str, str, Predictions, str]], best: Mapping[str, float], title: str) -> Picture:
    """Mean absolute errors with intervals over clips, then the best possible scores, on one scale.

    Args:
        rows: title, role, predictions, and name of the output.
        best: best possible score by input.
        title: title of the picture.
    """
    from vadv_dist.evaluation.paired import paired_bootstrap

    errors = []
    for _, _, predictions, output in rows:
        found = np.abs(predictions.logits[output] - predictions.label)
        found = found[np.isfinite(found)]
        errors.append(paired_bootstrap(found, np.zeros_like(found), seed=0, num_samples=2000))
    low = min(*(error.low for error in errors), *best.values(), math.inf)
    high = max(*(error.high for error in errors), *best.values(), 0.0)
    room = max((high - low) * 0.1, 0.02)
    names = [*(name for name, *_ in rows), *(f"Best from {name}" for name in best)]
    intervals = [f"{error.mean:.3f}  ({error.low:.3f} … {error.high:.3f})" for error in errors]
    values = [*intervals, *(f"{value:.3f}  (computed)" for value in best.values())]
    picture = Picture("errors", title, (WIDE[0], 34 + 42 * len(names)))
    picture.rows(names, values, (low - room, high + room))
    for at, ((name, role, *_), error) in enumerate(zip(rows, errors, strict=True)):
        picture.line([(error.low, at), (error.high, at)], role, width=2, dashed="-", alpha=0.6)
        text = f"{name}: {error.mean:.3f}, 95 % interval {error.low:.3f} … {error.high:.3f}"
        picture.dots([(error.mean, at)], role, [text], radius=5)
    for at, (name, value) in enumerate(best.items(), len(rows)):
        picture.dots([(value, at)], "quiet", [f"Best from {name}: {value:.3f}"], radius=6, marker="|")
    listed = (f"{name} {value}" for name, value in zip(names, intervals, strict=False))
    picture.label = f"{title} with 95 % intervals: {', '.join(listed)}."
    return picture


def scatter_pictures(evaluation: Scored) -> list[Picture]:
    """Predictions against labels, one picture per output."""
    low, high = evaluation.scale.low, evaluation.scale.high
    room, widest = (high - low) / 20, (high - low) / 2
    logits = evaluation.predictions.logits.values()
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
        panels.append((output.name, output.title, role_of(evaluation.task, output), predictions.logits[output.name]))
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
    scale, label, logits = evaluation.scale, evaluation.predictions.label, evaluation.predictions.logits[output.name]
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
    title += f", {output.title.lower()} {predictions.logits[output.name][row]:.2f}".replace("-", "−")
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
    metric, classes = evaluation.scale.classes
    label, logits = evaluation.predictions.label, evaluation.predictions.logits[output.name]
    predicted = np.isfinite(logits)
    counts, size, title = classes.confusion(logits[predicted], label[predicted]), len(classes.names), output.title
    picture = Picture(f"classes-{output.name}", title, (WIDE[0], 60 + 36 * size))
    picture.frame((-0.5, size - 0.5), (size - 0.5, -0.5), x_label=f"{title.lower()} (clips)")
    axes, names = picture.axes, [shortened(name, 18) for name in classes.names]
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    axes.set_ylabel("label", color=PALETTE["quiet"], fontsize=11)
    axes.tick_params(length=0, labelsize=12, labelcolor=PALETTE["ink"])
    for (row, column), count in np.ndenumerate(counts):
        total, right = counts[row].sum(), row == column
        [cell] = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["grid"])
        if count:
            shade = 0.7 * math.sqrt(count / total)
            [cell] = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["o1"], alpha=shade)
        pair = f"label {classes.names[row]}, {title.lower()} {classes.names[column]}"
        picture.title(cell, [f"{pair}: {count} of {total}"])
        if right:
            axes.bar(column, 0.9, 0.92, bottom=row - 0.45, fill=False, edgecolor=PALETTE["ink"], linewidth=1.5)
        look: dict[str, Any] = {"color": PALETTE["ink" if count else "label"], "weight": "bold" if right else "normal"}
        picture.text(column, row, str(count), ha="center", va="center", fontsize=12, **look)
    value = evaluation.document.metrics[output.name].get(metric.key)
    picture.note = "" if value is None else f"{metric.title} {score(value, percent=True)}"
    hits = f"{np.trace(counts)} of {predicted.sum()}"
    picture.label = f"Clips by class of label and of {title.lower()}: {hits} in the same class."
    return picture

"""Pictures of an evaluation: scores, predictions against labels, distributions of logits, classes."""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vadv_dist.evaluation.description import Output
from vadv_dist.reporting.markup import escape
from vadv_dist.reporting.pictures import WIDE, Picture, number, shortened
from vadv_dist.reporting.run_files import Predictions, Scored
from vadv_dist.reporting.style import PALETTE, role_of
from vadv_dist.reporting.words import clips, decimals, score

if TYPE_CHECKING:
    from vadv_dist.evaluation.paired import Interval

# More points than this make a page slow to draw; a sample of them shows the same cloud.
MAX_POINTS = 3000

# Bars over the label range, each as wide as the steps of MOSI's labels (0.2 of 6), and some on both sides of it.
_BARS, _OUTER_BARS = 30, 3


@dataclass(frozen=True)
class ErrorRow:
    """The mean absolute error of one reader, with its interval over clips."""

    name: str
    role: str
    error: "Interval"


def error_row(name: str, role: str, predictions: Predictions, reader: str) -> ErrorRow | None:
    """Score one reader on the clips that it answers; None where it answers none."""
    import numpy as np

    from vadv_dist.evaluation.paired import paired_bootstrap

    errors = np.abs(np.asarray(predictions.logits[reader]) - np.asarray(predictions.label))
    errors = errors[np.isfinite(errors)]
    if not errors.size:
        return None
    return ErrorRow(name, role, paired_bootstrap(errors, np.zeros_like(errors), seed=0, num_samples=2000))


def error_picture(rows: Sequence[ErrorRow], best: Mapping[str, float], heading: str) -> Picture:
    """Mean absolute errors on one scale, with intervals; then the best that could be reached, by input."""
    low = min(*(row.error.low for row in rows), *best.values(), math.inf)
    high = max(*(row.error.high for row in rows), *best.values(), 0.0)
    room = max((high - low) * 0.1, 0.02)
    names = [*(row.name for row in rows), *(f"Best from {name}" for name in best)]
    intervals = [f"{row.error.mean:.3f}  ({row.error.low:.3f} … {row.error.high:.3f})" for row in rows]
    picture = Picture("errors", heading, (WIDE[0], 34 + 42 * len(names)))
    picture.rows(
        names, [*intervals, *(f"{value:.3f}  (computed)" for value in best.values())], (low - room, high + room)
    )
    for at, row in enumerate(rows):
        picture.line([(row.error.low, at), (row.error.high, at)], row.role, width=2, dashed="-", alpha=0.6)
        title = f"{row.name}: {row.error.mean:.3f}, 95 % interval {row.error.low:.3f} … {row.error.high:.3f}"
        picture.dots([(row.error.mean, at)], row.role, [title], radius=5)
    for at, (name, value) in enumerate(best.items(), len(rows)):
        picture.dots([(value, at)], "quiet", [f"Best from {name}: {value:.3f}"], radius=6, marker="|")
    told = (f"{name} {value}" for name, value in zip(names, intervals, strict=False))
    picture.label = f"{heading} with 95 % intervals: {', '.join(told)}."
    return picture


@dataclass(frozen=True)
class LabelRange:
    """The range of labels that pictures show."""

    low: float
    high: float

    @property
    def bar(self) -> float:
        """Width of a histogram's bar."""
        return (self.high - self.low) / _BARS

    @property
    def edges(self) -> list[float]:
        """Edges of a histogram's bars, which are centred on the steps, so that a label never lies on an edge."""
        return [self.low + (index - _OUTER_BARS + 0.5) * self.bar for index in range(_BARS + 2 * _OUTER_BARS)]


def scatter_pictures(evaluation: Scored) -> list[Picture]:
    """Predictions against labels, one picture per output."""
    labels = LabelRange(evaluation.scale.low, evaluation.scale.high)
    room, widest = (labels.high - labels.low) / 20, (labels.high - labels.low) / 2
    values = [value for logits in evaluation.predictions.logits.values() for value in logits if math.isfinite(value)]
    # One scale for all, which a few wild predictions may not squeeze: those are drawn on its edge.
    low = max(min(labels.low, *values) - room, labels.low - widest)
    high = min(max(labels.high, *values) + room, labels.high + widest)
    return [_scatter(evaluation, output, labels, (low, high)) for output in shown_outputs(evaluation)]


def histogram_pictures(evaluation: Scored, others: Sequence[tuple[str, list[float]]] = ()) -> list[Picture]:
    """Distribution of labels, then of each logit before the labels' outline.

    Args:
        evaluation: the run's.
        others: name and logits of the students of other runs, [R] each.
    """
    predictions = evaluation.predictions
    labels = LabelRange(evaluation.scale.low, evaluation.scale.high)
    outline = bar_shares(predictions.label, labels)
    panels = [("labels", "Label", "label", predictions.label)]
    for output in shown_outputs(evaluation):
        panels.append((output.name, output.title, role_of(evaluation.task, output), predictions.logits[output.name]))
    panels += [(f"other-{at}", name, "other", logits) for at, (name, logits) in enumerate(others, 1)]
    return [_histogram(*panel, labels, outline) for panel in panels]


def bar_shares(values: Sequence[float], labels: LabelRange) -> list[float]:
    """Share of the finite values in each bar; values beyond the outermost bars are counted in them."""
    import numpy as np

    finite, edges = [value for value in values if math.isfinite(value)], labels.edges
    counts, _ = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)
    return [int(count) / max(len(finite), 1) for count in counts]


def confusion_pictures(evaluation: Scored) -> list[Picture]:
    """Clips by class of the label (row) and of the prediction (column), of the first two outputs that predict."""
    shown = [output for output in shown_outputs(evaluation) if output.name in evaluation.document.metrics][:2]
    return [picture for output in shown if (picture := _confusion(evaluation, output)) is not None]


def shown_outputs(evaluation: Scored) -> list[Output]:
    """Outputs that have predictions, in the order of every table."""
    return [output for output in evaluation.task.outputs if output.name in evaluation.predictions.logits]


def _scatter(evaluation: Scored, output: Output, labels: LabelRange, shown_range: tuple[float, float]) -> Picture:
    predictions, reader = evaluation.predictions, output.name
    rows = [row for row, value in enumerate(predictions.logits[reader]) if math.isfinite(value)]
    shown = sorted(random.Random(0).sample(rows, MAX_POINTS)) if len(rows) > MAX_POINTS else rows
    room = (labels.high - labels.low) / 20
    picture = Picture(f"predictions-{reader}", output.title, (320, 300))
    picture.frame((labels.low - room, labels.high + room), shown_range, x_label="label", ticks=(7, 8))
    points = [(predictions.label[row], predictions.logits[reader][row]) for row in shown]
    titles = [_clip(evaluation, row, output) for row in shown]
    picture.dots(points, role_of(evaluation.task, output), titles, radius=2.6, alpha=0.42)
    picture.line([(labels.low, labels.low), (labels.high, labels.high)], "ink", width=1, dashed=(0, (4, 3)))
    values = evaluation.document.metrics.get(reader, {})
    first_two = evaluation.task.metrics[:2]
    scored = [f"{m.title} {score(values.get(m.key), percent=m.percent)}" for m in first_two]
    picture.label = f"{output.title} against label for {clips(len(shown))}: {', '.join(scored)}."
    sample = "" if len(shown) == len(rows) else f" · a sample of {len(shown)}"
    picture.note = escape(f"{' · '.join(scored)}{sample}")
    return picture


def _clip(evaluation: Scored, row: int, output: Output) -> str:
    """What a point says of its clip; its words with the student, which alone reads them."""
    predictions, reader = evaluation.predictions, output.name
    told = f"{predictions.clip_id[row]}: label {decimals(predictions.label[row])}"
    told += f", {output.title.lower()} {predictions.logits[reader][row]:.2f}".replace("-", "−")
    if output is not evaluation.task.student:
        return told
    text = predictions.text[row]
    return f"{told}\n{text if len(text) <= 120 else text[:119] + '…'}"


def _histogram(
    name: str, title: str, role: str, values: Sequence[float], labels: LabelRange, outline: Sequence[float]
) -> Picture:
    shares, edges = bar_shares(values, labels), labels.edges
    picture = Picture(f"distribution-{name}", title, (320, 170))
    top = max(*shares, *outline) * 105
    picture.frame((edges[0], edges[-1]), (0.0, top), x_label="share of clips (%) by value", ticks=(7, 4))
    bars = [(left + labels.bar / 2, share) for left, share in zip(edges, shares, strict=False) if share]
    for middle, share in bars:
        drawn = picture.axes.bar(middle, 100 * share, 0.92 * labels.bar, color=PALETTE[role], alpha=0.8)
        picture.title(drawn[0], [f"around {decimals(round(middle, 3))}: {share:.1%}"])
    if role != "label":
        picture.axes.stairs(
            [100 * share for share in outline], edges, color=PALETTE["ink"], linewidth=1.1, clip_on=False
        )
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    mean, spread = round(statistics.fmean(finite), 2) + 0.0, statistics.pstdev(finite)
    note = f"mean {mean:.2f} · standard deviation {spread:.2f}".replace("-", "−")
    picture.note = escape(note)
    picture.label = f"Histogram of {title.lower()} from {number(min(finite))} to {number(max(finite))}: {note}."
    return picture


def _confusion(evaluation: Scored, output: Output) -> Picture | None:
    metric, classes = evaluation.scale.classes
    predictions = evaluation.predictions
    pairs = zip(predictions.logits[output.name], predictions.label, strict=True)
    answered = [(logit, label) for logit, label in pairs if math.isfinite(logit)]
    if not answered:
        return None
    counts, size, title = classes.confusion(*zip(*answered, strict=True)), len(classes.names), output.title
    picture = Picture(f"classes-{output.name}", title, (WIDE[0], 60 + 36 * size))
    picture.frame((-0.5, size - 0.5), (size - 0.5, -0.5), x_label=f"{title.lower()} (clips)")
    axes = picture.axes
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(size), [shortened(name, 18) for name in classes.names])
    axes.set_yticks(range(size), [shortened(name, 18) for name in classes.names])
    axes.set_ylabel("label", color=PALETTE["quiet"], fontsize=11)
    axes.tick_params(length=0, labelsize=12, labelcolor=PALETTE["ink"])
    for row, label in enumerate(classes.names):
        total = int(counts[row].sum())
        for column, predicted in enumerate(classes.names):
            count, right = int(counts[row, column]), row == column
            cell = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["grid"])
            if count:
                shade = 0.7 * math.sqrt(count / total)
                cell = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["o1"], alpha=shade)
            picture.title(cell[0], [f"label {label}, {title.lower()} {predicted}: {count} of {total}"])
            if right:
                axes.bar(column, 0.9, 0.92, bottom=row - 0.45, fill=False, edgecolor=PALETTE["ink"], linewidth=1.5)
            look: dict[str, Any] = {
                "color": PALETTE["ink" if count else "label"],
                "weight": "bold" if right else "normal",
            }
            picture.text(column, row, str(count), ha="center", va="center", fontsize=12, **look)
    value = evaluation.document.metrics[output.name].get(metric.key)
    picture.note = escape("" if value is None else f"{metric.title} {score(value, percent=True)}")
    hits = int(sum(counts[at, at] for at in range(size)))
    picture.label = f"Clips by class of label and of {title.lower()}: {hits} of {len(answered)} in the same class."
    return picture

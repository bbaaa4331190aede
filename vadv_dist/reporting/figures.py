"""Figures of an evaluation: predictions against labels, and how logits are distributed (the paper's Figure 5)."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from vadv_dist.evaluation.description import Output
from vadv_dist.reporting.curves import figure
from vadv_dist.reporting.markup import Markup, tag
from vadv_dist.reporting.run_files import Scored
from vadv_dist.reporting.svg import Axes, Point, axes, drawing, number
from vadv_dist.reporting.words import clips, decimals, score

# More points than this make a page slow to draw; a sample of them shows the same cloud.
MAX_POINTS = 3000

# Bars over the label range, each as wide as the steps of MOSI's labels (0.2 of 6), and some on both sides of it.
_BARS, _OUTER_BARS = 30, 3


@dataclass(frozen=True)
class LabelRange:
    """The range of labels that figures show."""

    low: float
    high: float

    @property
    def bar(self) -> float:
        """Width of a histogram's bar."""
        return (self.high - self.low) / _BARS


def scatter_figures(evaluation: Scored) -> list[Markup]:
    """Predictions against labels, one figure per reader."""
    labels = LabelRange(evaluation.scale.low, evaluation.scale.high)
    room, widest = (labels.high - labels.low) / 20, (labels.high - labels.low) / 2
    values = [value for logits in evaluation.predictions.logits.values() for value in logits if math.isfinite(value)]
    # One scale for all, which a few wild predictions may not squeeze: those are drawn on its edge.
    low = max(min(labels.low, *values) - room, labels.low - widest)
    high = min(max(labels.high, *values) + room, labels.high + widest)
    area = axes(320, 300, (labels.low - room, labels.high + room), (low, high))
    return [_scatter(evaluation, output, labels, area) for output in shown_outputs(evaluation)]


def histogram_figures(evaluation: Scored, others: Sequence[tuple[str, list[float]]] = ()) -> list[Markup]:
    """Distribution of labels, then of each logit before the labels' outline.

    Args:
        evaluation: the run's.
        others: name and text logits of other runs, [R] each.
    """
    predictions = evaluation.predictions
    labels = LabelRange(evaluation.scale.low, evaluation.scale.high)
    outline = bar_shares(predictions.label, labels)
    panels = [("Label", "label", predictions.label)]
    panels += [(o.title, o.name, predictions.logits[o.name]) for o in shown_outputs(evaluation)]
    panels += [(name, "other", logits) for name, logits in others]
    return [_histogram(title, class_, values, labels, outline) for title, class_, values in panels]


def bar_shares(values: Sequence[float], labels: LabelRange) -> list[float]:
    """Share of the finite values in each bar; values beyond the outermost bars are counted in them."""
    counts = [0] * (_BARS + 1 + 2 * (_OUTER_BARS - 1))
    finite = [value for value in values if math.isfinite(value)]
    for value in finite:
        # Bars are centred on the steps, so that a label never lies on the edge of one.
        index = math.floor((value - labels.low) / labels.bar + 0.5 + 1e-9) + _OUTER_BARS - 1
        counts[min(max(index, 0), len(counts) - 1)] += 1
    return [count / max(len(finite), 1) for count in counts]


def _scatter(evaluation: Scored, output: Output, labels: LabelRange, area: Axes) -> Markup:
    predictions, reader = evaluation.predictions, output.name
    rows = [row for row, value in enumerate(predictions.logits[reader]) if math.isfinite(value)]
    shown = sorted(random.Random(0).sample(rows, MAX_POINTS)) if len(rows) > MAX_POINTS else rows
    ends: list[Point] = [(labels.low, labels.low), (labels.high, labels.high)]
    points = [
        area.dot((predictions.label[row], predictions.logits[reader][row]), reader, 2.6, _clip(evaluation, row, output))
        for row in shown
    ]
    frame = area.frame(x_label="label", x_ticks=7, y_ticks=7)
    cloud = tag("g", *points, class_="cloud")
    values = evaluation.document.metrics.get(reader, {})
    first_two = evaluation.task.metrics[:2]
    scored = [f"{m.title} {score(values.get(m.key), percent=m.percent)}" for m in first_two]
    label = f"{output.title} against label for {clips(len(shown))}: {', '.join(scored)}."
    sample = "" if len(shown) == len(rows) else f" · a sample of {len(shown)}"
    note = f"{' · '.join(scored)}{sample}"
    return figure(output.title, note, drawing(area, label, frame, cloud, area.line(ends, "identity")))


def shown_outputs(evaluation: Scored) -> list[Output]:
    """Outputs that have predictions, in the order of every table."""
    return [output for output in evaluation.task.outputs if output.name in evaluation.predictions.logits]


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
    title: str, class_: str, values: Sequence[float], labels: LabelRange, outline: Sequence[float]
) -> Markup:
    shares = bar_shares(values, labels)
    start = labels.low - (_OUTER_BARS - 0.5) * labels.bar
    end = start + len(shares) * labels.bar
    area = axes(320, 170, (start, end), (0.0, max(*shares, *outline) * 105))
    floor = area.y(0)
    bars, steps = [], [f"M{area.x(start):.1f} {floor:.1f}"]
    for index, (share, label_share) in enumerate(zip(shares, outline, strict=True)):
        middle = start + (index + 0.5) * labels.bar
        left, right, top = area.x(middle - labels.bar / 2), area.x(middle + labels.bar / 2), area.y(100 * share)
        if share:
            told = tag("title", f"around {decimals(round(middle, 3))}: {share:.1%}")
            place = {"x": left + 0.4, "width": right - left - 0.8, "y": top, "height": floor - top}
            bars.append(tag("rect", told, class_=f"bar {class_}", **place))
        steps.append(f"V{area.y(100 * label_share):.1f}H{right:.1f}")
    drawn_outline = tag("path", d="".join([*steps, f"V{floor:.1f}"]), class_="outline") if class_ != "label" else ""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    mean, spread = statistics.fmean(finite), statistics.pstdev(finite)
    note = f"mean {mean:.2f} · standard deviation {spread:.2f}".replace("-", "−")
    label = f"Histogram of {title.lower()} from {number(min(finite))} to {number(max(finite))}: {note}."
    frame = area.frame(x_label="share of clips (%) by value", x_ticks=7, y_ticks=3)
    return figure(title, note, drawing(area, label, frame, *bars, drawn_outline))

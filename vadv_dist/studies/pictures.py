"""Pictures of a study: seeds of each variant, Almost Stochastic Order of all pairs, and learning curves."""

import math
import statistics
from collections.abc import Sequence

from vadv_dist.evaluation.description import Metric
from vadv_dist.reporting.pictures import SMALL, WIDE, Picture, shortened, with_room
from vadv_dist.reporting.style import PALETTE
from vadv_dist.reporting.words import SPLITS
from vadv_dist.studies.analysis import Cell, StudyResult
from vadv_dist.studies.tables import DOMINANCE, epsilon_text, heading, interval_text, mean_text, number

_ROW = 40  # pixels of a variant's row


def strip_picture(result: StudyResult, split: str, metric: Metric) -> Picture | None:
    """Every seed of every variant, with mean, interval and published value; None without a value."""
    cells = {name: result.analysis.cells[name][split][metric.key] for name in result.variants}
    shown = [value for cell in cells.values() for value in _extent(cell)]
    if not shown:
        return None
    scale = 100 if metric.percent else 1
    low, high = scale * min(shown), scale * max(shown)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    size = (WIDE[0], 44 + _ROW * len(cells))
    picture = Picture(f"seeds-{split}-{metric.key}", f"{heading(metric)}, {SPLITS[split]} split", size)
    values = [mean_text(cell, metric) for cell in cells.values()]
    picture.rows(list(cells), values, (low - room, high + room), x_label=heading(metric))
    if reference := cells[result.reference].values:
        mean = scale * statistics.fmean(reference.values())
        picture.line([(mean, -0.7), (mean, len(cells) - 0.6)], "label", width=1, dashed=(0, (4, 3)))
    for row, (name, cell) in enumerate(cells.items()):
        if cell.interval is not None:
            ends = [(scale * cell.interval.low, row), (scale * cell.interval.high, row)]
            picture.line(ends, "o1", width=3, alpha=0.35, dashed="-")
        points = [(scale * value, float(row)) for value in cell.values.values()]
        who = [name if seed is None else f"{name}, seed {seed}" for seed in cell.values]
        titles = [f"{each}: {number(value, metric)}" for each, value in zip(who, cell.values.values(), strict=True)]
        picture.dots(points, "o1", titles, radius=3.4, alpha=0.75)
        if cell.values:
            interval = interval_text(cell.interval, metric)
            title = f"{name}: mean {mean_text(cell, metric)}, 95 % interval {interval}"
            picture.dots([(scale * cell.mean, row)], "ink", [title], radius=5, marker="|")
        if cell.published is not None:
            title = f"{name}, published: {number(cell.published, metric)}"
            picture.dots([(scale * cell.published, row)], "o3", [title], radius=3.6)
    has_published = any(cell.published is not None for cell in cells.values())
    picture.keys = [("seeds", "o1"), *([("published", "o3")] if has_published else [])]
    means = [f"{name} {mean_text(cell, metric)}" for name, cell in cells.items()]
    picture.label = f"{heading(metric)} by variant and seed: {'; '.join(means)}."
    picture.note = "mark: mean; bar: 95 % interval; dashes: the reference"
    return picture


def _extent(cell: Cell) -> list[float]:
    ends = [cell.interval.low, cell.interval.high] if cell.interval else []
    published = [] if cell.published is None else [cell.published]
    return [value for value in (*cell.values.values(), *ends, *published) if math.isfinite(value)]


def order_picture(result: StudyResult, split: str, metric: Metric) -> Picture | None:
    """ε_min of "row is better than column" for every pair, corrected for all pairs; None without a pair."""
    known = {(p.a, p.b): p.epsilon_corrected for p in result.analysis.pairs[split][metric.key]}
    names = [name for name in result.variants if any(name in pair for pair in known)]
    if not any(value is not None for value in known.values()):
        return None
    size = len(names)
    height = 76 + 34 * size
    picture = Picture(f"order-{split}-{metric.key}", f"Is the row better? {metric.title}", (WIDE[0], height))
    axes = picture.axes
    picture.frame((-0.5, size - 0.5), (size - 0.5, -0.5))
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(size), [str(number + 1) for number in range(size)])
    axes.set_yticks(range(size), [f"{number + 1}. {shortened(name, 24)}" for number, name in enumerate(names)])
    axes.tick_params(length=0, labelsize=11, labelcolor=PALETTE["ink"])
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            epsilon = known.get((a, b))
            [cell] = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["grid"])
            if epsilon is not None and epsilon < DOMINANCE:
                shade = 0.2 + 0.5 * (1 - epsilon / DOMINANCE)
                [cell] = axes.bar(column, 0.92, 0.94, bottom=row - 0.46, color=PALETTE["o1"], alpha=shade)
            if a == b:
                continue
            picture.title(cell, [f"{a} better than {b}: ε_min {epsilon_text(epsilon)}"])
            picture.text(column, row, epsilon_text(epsilon), color=PALETTE["ink"], ha="center", va="center")
    found = [f"{a} over {b} {epsilon_text(e)}" for (a, b), e in known.items() if e is not None and e < DOMINANCE]
    picture.label = f"ε_min of {metric.title} by pair; below {DOMINANCE}: {'; '.join(found) or 'none'}."
    picture.note = f"ε_min, corrected for all pairs; shaded below {DOMINANCE}"
    return picture


def curve_pictures(result: StudyResult) -> list[Picture]:
    """Validation score by epoch: each seed thin, their mean bold, that of the reference dashed behind."""
    metric = result.task.score_metric
    scale = 100 if metric.percent else 1
    curves = {name: [run.curve for run in result.runs_of(name) if run.curve] for name in result.variants}
    points = [point for lines in curves.values() for line in lines for point in line]
    if not points:
        return []
    values = sorted(scale * value for _, value in points)
    # The first epochs are often far from all others.
    few = max(1, len(values) // 50)
    low, high = (values[0], values[-few]) if metric.lower_is_better else (values[few - 1], values[-1])
    last = max(epoch for epoch, _ in points)
    reference = _mean_curve(curves[result.reference], scale)
    pictures = []
    for name, lines in curves.items():
        if not lines:
            continue
        picture = Picture(f"curve-{name}", name, SMALL)
        picture.frame((1, max(last, 2)), with_room(low, high), x_label="epoch", whole_x=True)
        if name != result.reference and reference:
            picture.line(reference, "label", width=1.6, dashed=(0, (4, 3)))
        for line in lines:
            picture.line([(epoch, scale * value) for epoch, value in line], "o1", width=0.8, alpha=0.4, dashed="-")
        mean = _mean_curve(lines, scale)
        picture.line(mean, "o1", width=2)
        titles = [f"epoch {epoch:g}: mean of {len(lines)} seeds {value:.3f}" for epoch, value in mean]
        picture.dots(mean, "o1", titles, radius=2 if len(mean) <= 30 else 1)
        picture.label = f"Validation {metric.title} by epoch of {name}; the mean ends at {mean[-1][1]:.3f}."
        pictures.append(picture)
    return pictures


def _mean_curve(lines: Sequence[Sequence[tuple[int, float]]], scale: float) -> list[tuple[float, float]]:
    """Mean over the seeds that have an epoch, as long as at least half of them do."""
    by_epoch: dict[int, list[float]] = {}
    for line in lines:
        for epoch, value in line:
            by_epoch.setdefault(epoch, []).append(scale * value)
    return [
        (float(epoch), statistics.fmean(values))
        for epoch, values in sorted(by_epoch.items())
        if 2 * len(values) >= len(lines)
    ]

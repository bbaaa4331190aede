"""Tables of the page: errors at a glance, metrics, classes, the worst predictions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.run_files import Predictions
from vadv_dist.reporting.svg import Scale, linear_ticks, number
from vadv_dist.reporting.words import score
from vadv_dist.runs.records import Values

if TYPE_CHECKING:
    from vadv_dist.evaluation.label_scale import LabelScale
    from vadv_dist.evaluation.paired import Interval


@dataclass(frozen=True)
class ErrorRow:
    """The mean absolute error of one reader, with its interval over clips."""

    name: str
    class_: str
    error: "Interval"


def error_row(name: str, class_: str, predictions: Predictions, reader: str) -> ErrorRow | None:
    """Score one reader on the clips that it answers; None where it answers none."""
    import numpy as np

    from vadv_dist.evaluation.paired import paired_bootstrap

    errors = np.abs(np.asarray(predictions.logits[reader]) - np.asarray(predictions.label))
    errors = errors[np.isfinite(errors)]
    if not errors.size:
        return None
    return ErrorRow(name, class_, paired_bootstrap(errors, np.zeros_like(errors), seed=0, num_samples=2000))


def error_table(rows: Sequence[ErrorRow], best: Mapping[str, float], heading: str) -> Markup:
    """Mean absolute errors on one scale, with intervals; then the best that could be reached, by input."""
    low = min(*(row.error.low for row in rows), *best.values(), math.inf)
    high = max(*(row.error.high for row in rows), *best.values(), 0.0)
    room = max((high - low) * 0.1, 0.02)
    scale = Scale(max(low - room, 0.0), high + room, 0.0, 100.0)
    ticks = [value for value in linear_ticks(scale.low, scale.high, 4) if 3 < scale(value) < 97]
    grid = join(*(tag("i", class_="rule", style=f"left:{scale(value):.2f}%") for value in ticks))
    body = []
    for row in rows:
        mean, left, right = (scale(value) for value in row.error)
        track = join(
            grid,
            tag("i", class_=f"whisker {row.class_}", style=f"left:{left:.2f}%;width:{right - left:.2f}%"),
            tag("i", class_=f"mark {row.class_}", style=f"left:{mean:.2f}%"),
        )
        interval = f"{row.error.low:.3f} … {row.error.high:.3f}"
        cells = [
            tag("th", tag("span", row.name, class_=f"key {row.class_}"), scope="row"),
            tag("td", f"{row.error.mean:.3f}", class_="number strong"),
            tag("td", tag("div", track, class_="track"), class_="wide", aria_hidden="true"),
            tag("td", interval, class_="number quiet last"),
        ]
        body.append(tag("tr", *cells, class_="lead" if row is rows[0] else None))
    for name, value in best.items():
        track = join(grid, tag("i", class_="limit", style=f"left:{scale(value):.2f}%"))
        cells = [
            tag("th", f"Best from {name}", scope="row", class_="quiet"),
            tag("td", f"{value:.3f}", class_="number quiet"),
            tag("td", tag("div", track, class_="track"), class_="wide", aria_hidden="true"),
            tag("td", "computed", class_="number quiet last"),
        ]
        body.append(tag("tr", *cells))
    names = join(*(tag("i", number(value), style=f"left:{scale(value):.2f}%") for value in ticks))
    foot = tag("tr", tag("td"), tag("td"), tag("td", tag("div", names, class_="track names")), tag("td"))
    head = _head(("Reader", ""), (heading, "number"), ("", "wide"), ("95 % interval", "number"))
    return tag("table", head, tag("tbody", *body), tag("tfoot", foot, aria_hidden="true"), class_="errors")


def metrics_table(rows: Sequence[tuple[str, str, Values]], metrics: Sequence[Metric]) -> Markup:
    """Metrics by reader: (name, class, scores) of each; a column for each of the metrics that one of them has."""
    head = [("Reader", "")]
    shown = [metric for metric in metrics if any(metric.key in scores for _, _, scores in rows)]
    names = [
        join(metric.name, " ↓" if metric.lower_is_better else " ↑", tag("small", metric.convention)) for metric in shown
    ]
    head += [(name, "number") for name in names]
    body = [
        tag(
            "tr",
            tag("th", tag("span", name, class_=f"key {class_}"), scope="row"),
            *(tag("td", score(scores.get(m.key), percent=m.percent), class_="number") for m in shown),
            class_="lead" if number == 0 else None,
        )
        for number, (name, class_, scores) in enumerate(rows)
    ]
    return scrolling("Metrics", tag("table", _head(*head), tag("tbody", *body)))


def worst_table(predictions: Predictions, scale: "LabelScale", task: TaskDescription, count: int = 10) -> Markup:
    """The clips on which the student errs most."""
    rows = range(len(predictions))
    errors = [abs(predictions.logits[task.student.name][row] - predictions.label[row]) for row in rows]
    worst = sorted(rows, key=lambda row: (-errors[row], predictions.clip_id[row]))[:count]
    titles = {output.name: output.title for output in task.outputs}
    readers = list(predictions.logits)
    head = [("Words", "words"), ("Label", "number")]
    head += [(titles[reader], "number") for reader in readers] + [("Error", "number")]
    body = []
    for row in worst:
        words = join(tag("q", predictions.text[row]), tag("small", predictions.clip_id[row]))
        values = [predictions.label[row], *(predictions.logits[reader][row] for reader in readers)]
        cells = [tag("td", in_label_units(value, scale), class_="number") for value in values]
        error = tag("td", f"{errors[row]:.2f}", class_="number strong")
        body.append(tag("tr", tag("th", words, scope="row", class_="words"), *cells, error))
    return scrolling("Worst predictions", tag("table", _head(*head), tag("tbody", *body), class_="worst"))


def plain_table(label: str, columns: Sequence[str], rows: Iterable[tuple[str | None, Sequence[str]]]) -> Markup:
    """A table whose first column names its rows; each row is its class and its cells."""
    head = _head((columns[0], ""), *((name, "number") for name in columns[1:]))
    body = [
        tag("tr", tag("th", cells[0], scope="row"), *(tag("td", c, class_="number") for c in cells[1:]), class_=class_)
        for class_, cells in rows
    ]
    return scrolling(label, tag("table", head, tag("tbody", *body)))


def facts_list(facts: Mapping[str, str]) -> Markup:
    """Names and values, in pairs."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()), class_="facts")


def scrolling(label: str, table: str) -> Markup:
    """A table that scrolls by itself where the page is narrow, also by keyboard."""
    return tag("div", table, class_="scroll", role="region", aria_label=label, tabindex=0)


def in_label_units(value: float, scale: "LabelScale") -> str:
    """A label or a logit, in two decimals; with its sign where labels may be negative."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+.2f}".replace("+0.00", "0.00") if scale.low < 0 else f"{value:.2f}"
    return text.replace("-", "−")


def _head(*columns: tuple[str, str]) -> Markup:
    cells = (tag("th", name, scope="col", class_=class_ or None) for name, class_ in columns)
    return tag("thead", tag("tr", *cells))

"""Tables of the page: metrics, the worst predictions, facts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.run_files import Predictions
from vadv_dist.reporting.words import score
from vadv_dist.runs.records import Values

if TYPE_CHECKING:
    from vadv_dist.evaluation.label_scale import LabelScale


def metrics_table(rows: Sequence[tuple[str, str, Values]], metrics: Sequence[Metric]) -> Markup:
    """Metrics by reader: (name, role, scores) of each; a column for each of the metrics that one of them has."""
    head = [("Reader", "")]
    shown = [metric for metric in metrics if any(metric.key in scores for _, _, scores in rows)]
    names = [
        join(metric.name, " ↓" if metric.lower_is_better else " ↑", tag("small", metric.convention)) for metric in shown
    ]
    head += [(name, "number") for name in names]
    body = [
        tag(
            "tr",
            tag("th", tag("span", name, class_=f"key {role}"), scope="row"),
            *(tag("td", score(scores.get(m.key), percent=m.percent), class_="number") for m in shown),
            class_="lead" if number == 0 else None,
        )
        for number, (name, role, scores) in enumerate(rows)
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

"""Tables of the page: metrics and facts."""

from collections.abc import Iterable, Mapping, Sequence

from vadv_dist.evaluation.description import Metric
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.words import fit_columns, score, shown_metrics
from vadv_dist.runs.records import Values


def metrics_table(rows: Sequence[tuple[str, str, Values]], metrics: Sequence[Metric]) -> Markup:
    """Metrics by output: (name, role, scores) of each.

    A column for each metric that an output has; or, if that does not fit, a row for each, empty where an output has
    none.
    """
    keys = [scores for _, _, scores in rows]
    shown = shown_metrics(keys, metrics)
    names = [join(m.name, " ↓" if m.lower_is_better else " ↑", tag("small", m.convention)) for m in shown]
    outputs = [tag("span", name, class_=f"key {role}") for name, role, _ in rows]
    body: list[tuple[str | None, tuple[str, ...]]]
    if fit_columns(keys, metrics):
        cells = (score_cells(scores, shown) for scores in keys)
        body = [(None, (name, *values)) for name, values in zip(outputs, cells, strict=True)]
        body[:1] = [("lead", cells) for _, cells in body[:1]]
        return plain_table("Metrics", ("Output", *names), body)
    body = []
    for metric, name in zip(shown, names, strict=True):
        values = ("" if metric.key not in scores else score_cells(scores, [metric])[0] for scores in keys)
        body.append(("lead" if metric == shown[0] else None, (name, *values)))
    return plain_table("Metrics", ("Metric", *outputs), body)


def score_cells(scores: Values, metrics: Sequence[Metric]) -> list[str]:
    """One output's metrics."""
    return [score(scores.get(metric.key), percent=metric.percent) for metric in metrics]


def plain_table(label: str, columns: Sequence[str], rows: Iterable[tuple[str | None, Sequence[str]]]) -> Markup:
    """A table whose first column names its rows, each a class and its cells; it scrolls where the page is narrow."""
    first, *others = columns
    head = (tag("th", first, scope="col"), *(tag("th", name, scope="col", class_="number") for name in others))
    body = (
        tag("tr", tag("th", cells[0], scope="row"), *(tag("td", c, class_="number") for c in cells[1:]), class_=class_)
        for class_, cells in rows
    )
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body))
    return tag("div", table, class_="scroll", role="region", aria_label=label, tabindex=0)


def facts_list(facts: Mapping[str, str]) -> Markup:
    """Names and values, in pairs."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()), class_="facts")

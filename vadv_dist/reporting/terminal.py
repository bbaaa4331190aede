"""Metrics as tables for a terminal of 80 columns.

Only ASCII is written here, which every terminal and log can show; rich leaves colours out where there is no terminal.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vadv_dist.reporting.run_files import Metrics
from vadv_dist.reporting.truth import best_attainable
from vadv_dist.reporting.words import MISSING, READERS, score, signed

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vadv_dist.evaluation.label_scale import LabelScale, Metric
    from vadv_dist.evaluation.paired import Interval


def metrics_table(evaluations: Mapping[str, Metrics], title: str, scale: "LabelScale") -> "Table":
    """Metrics of several readers or runs, one a row.

    Args:
        evaluations: metrics by name of the row; the keys of an evaluation (`student`, `video`, `prompt`) are written
            out. A metric that is absent, None or nan is a dash.
        title: what stands above the table.
        scale: the labels', which says what metrics there are; one that no row has gets no column.
    Returns:
        A table for `rich.console.Console.print`, at most 80 columns wide.
    """
    shown = _shown(evaluations.values(), scale)
    clips = {metrics.get("clips") for metrics in evaluations.values()}
    table = _table(title, shown)
    for name, metrics in evaluations.items():
        # A teacher may have seen fewer clips than the student read.
        size = f", {metrics['clips']:g} clips" if len(clips) > 1 and metrics.get("clips") is not None else ""
        table.add_row(READERS.get(name, name) + size, *_scores(metrics, shown))
    return table


def notes(document: Mapping[str, Any]) -> "Text":
    """What stands below the tables of an evaluation: metrics that are absent, and readers that are constant."""
    from rich.text import Text

    from vadv_dist.evaluation.label_scale import LabelScale

    text = Text(style="dim")
    for line in LabelScale.from_json(document["labels"]).in_words(document["absent"]):
        text.append(_ascii(line) + "\n")
    for line in document["remarks"]:
        text.append(_ascii(line).replace("’", "'") + "\n", style="not dim yellow")
    text.rstrip()
    return text


def comparison_table(
    alone: Metrics,
    taught: Metrics,
    *,
    scale: "LabelScale",
    gain: "Interval | None" = None,
    truth: Mapping[str, object] | None = None,
    title: str = "What the teacher gave the student",
) -> "Table":
    """The student alone, beside the teacher, and what it gained.

    Args:
        alone: metrics of the student trained alone.
        taught: metrics of the student trained beside the teacher.
        scale: the labels', which says what metrics there are.
        gain: how much smaller the taught student's error is, with its interval over clips, as
            `vadv_dist.reporting.comparison.compare_runs` computes it.
        truth: `truth` of a made data set's `dataset.json`, for the best MAE that can be reached from each input.
        title: what stands above the table.
    Returns:
        A table for `rich.console.Console.print`, at most 80 columns wide. Gains are positive where the taught student
        is better, in label units, or in points for percentages.
    """
    shown = _shown((alone, taught), scale)
    table = _table(title, shown)
    table.add_row("Student alone", *_scores(alone, shown))
    table.add_row("Student with teacher", *_scores(taught, shown))
    table.add_section()
    table.add_row("Gain", *(_gain(alone, taught, metric) for metric in shown), style="bold")
    if best := best_attainable(truth or {}):
        table.add_section()
        for name, mae in best.items():
            table.add_row(f"Best from {name}", _ascii(score(mae, percent=False)))
    if gain is not None:
        mean, low, high = (_ascii(score(value, percent=False)) for value in gain)
        table.caption = f"Gain in MAE {mean}; paired bootstrap over clips, 95 % interval {low} to {high}."
    return table


def _shown(rows: Iterable[Metrics], scale: "LabelScale") -> "list[Metric]":
    present = {key for metrics in rows for key in metrics}
    return [metric for metric in scale.metrics if metric.key in present]


def _table(title: str, shown: "Sequence[Metric]") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_style="bold",
        title_justify="left",
        caption_style="dim",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("", overflow="fold", max_width=26)
    for metric in shown:
        name = f"{metric.name}\n{metric.convention}" if metric.convention else metric.name
        table.add_column(name, justify="right", no_wrap=True, min_width=5)
    return table


def _scores(metrics: Metrics, shown: "Sequence[Metric]") -> list[str]:
    return [_ascii(score(metrics.get(metric.key), percent=metric.percent)) for metric in shown]


def _gain(alone: Metrics, taught: Metrics, metric: "Metric") -> str:
    before, after = alone.get(metric.key), taught.get(metric.key)
    if before is None or after is None:
        return _ascii(MISSING)
    difference = before - after if metric.lower_is_better else after - before
    return _ascii(signed(difference, percent=metric.percent))


def _ascii(text: str) -> str:
    return text.replace("−", "-").replace(MISSING, "-")

"""Metrics as tables for a terminal of 80 columns.

Only ASCII is written here, which every terminal and log can show; rich leaves colours out where there is no terminal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.reporting.truth import best_attainable
from vadv_dist.reporting.words import MISSING, score, signed
from vadv_dist.runs.records import Evaluation, Metrics, Values

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from vadv_dist.evaluation.paired import Interval


def evaluation_tables(evaluation: Evaluation) -> "Iterator[Table | Text]":
    """An evaluation for a terminal: all clips, each source where there are several, and notes."""
    what = f"{evaluation.split} split"
    if evaluation.other_data:
        what += f" of {evaluation.data[0]['uri']}"
    task = evaluation.task
    yield metrics_table(evaluation.metrics, task, f"{evaluation.run}, {what}, {evaluation.rows} clips")
    if len(evaluation.sources) > 1:
        for name, source in evaluation.sources.items():
            yield metrics_table(source.metrics, task, f"{name}, {source.rows} clips")
    if text := notes(evaluation):
        yield text


def metrics_table(metrics: Metrics, task: TaskDescription, title: str) -> "Table":
    """Metrics of several outputs, one a row.

    Args:
        metrics: by name of the output; one that is absent or None is a dash.
        task: what the outputs and metrics are called; a metric that no row has gets no column.
        title: what stands above the table.
    Returns:
        A table for `rich.console.Console.print`, at most 80 columns wide.
    """
    shown = _shown(metrics.values(), task)
    clips = {values.get("clips") for values in metrics.values()}
    table = _table(title, shown)
    titles = {output.name: output.title for output in task.outputs}
    for name, values in metrics.items():
        # A teacher may have seen fewer clips than the student read.
        size = f", {values['clips']:g} clips" if len(clips) > 1 and values.get("clips") is not None else ""
        table.add_row(titles.get(name, name) + size, *_scores(values, shown))
    return table


def notes(evaluation: Evaluation) -> "Text":
    """What stands below the tables of an evaluation: metrics that are absent, and outputs that are constant."""
    from rich.text import Text

    text = Text(style="dim")
    if evaluation.labels is not None:
        for line in evaluation.labels.in_words(evaluation.absent):
            text.append(_ascii(line) + "\n")
    for line in evaluation.remarks:
        text.append(_ascii(line).replace("’", "'") + "\n", style="not dim yellow")
    text.rstrip()
    return text


def comparison_table(
    alone: Evaluation,
    taught: Evaluation,
    *,
    gain: "Interval | None" = None,
    truth: Mapping[str, object] | None = None,
    title: str = "What the teacher gave the student",
) -> "Table":
    """The student alone, beside the teacher, and what it gained.

    Args:
        alone: of the student trained alone.
        taught: of the student trained beside the teacher.
        gain: how much smaller the taught student's error is, with its interval over clips, as
            `vadv_dist.reporting.comparison.compare_runs` computes it.
        truth: `truth` of a made data set's `dataset.json`, for the best score that can be reached from each input.
        title: what stands above the table.
    Returns:
        A table for `rich.console.Console.print`, at most 80 columns wide. Gains are positive where the taught student
        is better, in label units, or in points for percentages.
    """
    task = taught.task
    before, after = (each.metrics[task.student.name] for each in (alone, taught))
    shown = _shown((before, after), task)
    table = _table(title, shown)
    table.add_row("Student alone", *_scores(before, shown))
    table.add_row("Student with teacher", *_scores(after, shown))
    table.add_section()
    table.add_row("Gain", *(_gain(before, after, metric) for metric in shown), style="bold")
    if best := best_attainable(truth or {}, task.score):
        table.add_section()
        for name, value in best.items():
            table.add_row(f"Best from {name}", _ascii(score(value, percent=task.score_metric.percent)))
    if gain is not None:
        mean, low, high = (_ascii(score(value, percent=False)) for value in gain)
        table.caption = (
            f"Gain in {task.score_metric.title} {mean}; paired bootstrap over clips, 95 % interval {low} to {high}."
        )
    return table


def _shown(rows: Iterable[Values], task: TaskDescription) -> list[Metric]:
    present = {key for values in rows for key in values}
    return [metric for metric in task.metrics if metric.key in present]


def _table(title: str, shown: Sequence[Metric]) -> "Table":
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


def _scores(metrics: Values, shown: Sequence[Metric]) -> list[str]:
    return [_ascii(score(metrics.get(metric.key), percent=metric.percent)) for metric in shown]


def _gain(alone: Values, taught: Values, metric: Metric) -> str:
    before, after = alone.get(metric.key), taught.get(metric.key)
    if before is None or after is None:
        return _ascii(MISSING)
    difference = before - after if metric.lower_is_better else after - before
    return _ascii(signed(difference, percent=metric.percent))


def _ascii(text: str) -> str:
    return text.replace("−", "-").replace(MISSING, "-")

"""Tables of metrics for a terminal of 80 columns, in ASCII, which every terminal and log can show."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.reporting.words import MISSING, fit_columns, score, shown_metrics
from vadv_dist.runs.records import Evaluation, Metrics, Values

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def evaluation_tables(evaluation: Evaluation) -> "Iterator[Table | Text]":
    """An evaluation: all clips, each source if there are several, and notes."""
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
    """A row of metrics per output; if that does not fit, a row per metric.

    Args:
        metrics: by name of the output; one that is None is shown as a dash.
        task: titles of outputs and metrics; a metric that no output has is left out.
        title: title of the table.
    """
    clips = {values.get("clips") for values in metrics.values()}
    names = {output.name: output.title for output in task.outputs}
    # The teacher may have been scored on fewer clips than the student.
    titles = [
        names.get(name, name)
        + (f", {values['clips']:g} clips" if len(clips) > 1 and values.get("clips") is not None else "")
        for name, values in metrics.items()
    ]
    if not fit_columns(metrics.values(), task.metrics):
        return _transposed(metrics, task, title, titles)
    table, shown = _table(title, metrics.values(), task)
    for name, values in zip(titles, metrics.values(), strict=True):
        table.add_row(name, *_scores(values, shown))
    return table


def notes(evaluation: Evaluation) -> "Text":
    """The notes of an evaluation: metrics that are absent, and outputs that are constant."""
    from rich.text import Text

    text = Text(style="dim")
    if evaluation.labels is not None:
        for line in evaluation.labels.in_words(evaluation.absent):
            text.append(_ascii(line) + "\n")
    for line in evaluation.remarks:
        text.append(_ascii(line).replace("’", "'") + "\n", style="not dim yellow")
    text.rstrip()
    return text


def _transposed(metrics: Metrics, task: TaskDescription, title: str, outputs: Sequence[str]) -> "Table":
    """A row per metric and a column per output, empty where an output has no such metric."""
    table = _empty(title, 40)
    table.min_width = min(len(title), 80)  # so that a title above few columns is not folded
    for name in outputs:
        table.add_column(name, justify="right", overflow="fold", max_width=18)
    for metric in shown_metrics(metrics.values(), task.metrics):
        cells = (
            _ascii(score(values[metric.key], percent=metric.percent)) if metric.key in values else ""
            for values in metrics.values()
        )
        table.add_row(_ascii(metric.title), *cells)
    return table


def _table(title: str, rows: Iterable[Values], task: TaskDescription) -> "tuple[Table, list[Metric]]":
    """An empty table with a column for each metric that a row has, and these metrics."""
    table, shown = _empty(title, 26), shown_metrics(rows, task.metrics)
    for metric in shown:
        name = f"{metric.name}\n{metric.convention}" if metric.convention else metric.name
        table.add_column(name, justify="right", no_wrap=True, min_width=5)
    return table, shown


def _empty(title: str, width: int) -> "Table":
    """A table with one column of at most `width` characters."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    table.caption_style, table.caption_justify = "dim", "left"
    table.add_column("", overflow="fold", max_width=width)
    return table


def _scores(metrics: Values, shown: Sequence[Metric]) -> list[str]:
    return [_ascii(score(metrics.get(metric.key), percent=metric.percent)) for metric in shown]


def _ascii(text: str) -> str:
    return text.replace("−", "-").replace(MISSING, "-").replace(" → ", " to ").replace("→", "-to-")

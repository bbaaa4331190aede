"""A study's tables: Markdown, LaTeX, and for the terminal."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.paired import Interval
from vadv_dist.reporting.words import MISSING, SPLITS
from vadv_dist.studies.analysis import Cell, StudyResult

if TYPE_CHECKING:
    from rich.table import Table

# Almost stochastic dominance, and the limit that Ulmer et al. (arXiv:2204.06815) recommend.
DOMINANCE, RECOMMENDED = 0.5, 0.2
BEST_ON_TEST = "best per metric on test, as some papers report"
_PER_TABLE = 3  # metrics of a table for a terminal of 80 columns


def number(value: float | None, metric: Metric, *, signed: bool = False) -> str:
    """A value: three decimals, or one for a share in percent, without a sign for percent."""
    if value is None or not math.isfinite(value):
        return MISSING
    shown, digits = (100 * value, 1) if metric.percent else (value, 3)
    shown = round(shown, digits) + 0.0  # no minus before a zero
    return f"{shown:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def heading(metric: Metric) -> str:
    """A column's name with its direction and unit."""
    return f"{metric.heading} (%)" if metric.percent else metric.heading


def mean_text(cell: Cell, metric: Metric) -> str:
    """Mean ± standard deviation, marked if seeds are missing."""
    if not cell.values:
        return f"{MISSING} [0 of {cell.asked}]"
    deviation = "" if cell.deviation is None else f" ± {number(cell.deviation, metric)}"
    short = f" [{len(cell.values)} of {cell.asked}]" if cell.is_short else ""
    return f"{number(cell.mean, metric)}{deviation}{short}"


def interval_text(interval: Interval | None, metric: Metric, *, signed: bool = False) -> str:
    """Both ends of an interval."""
    if interval is None:
        return MISSING
    return f"{number(interval.low, metric, signed=signed)} … {number(interval.high, metric, signed=signed)}"


def notes(result: StudyResult) -> list[str]:
    """What a reader of the tables must know, in sentences."""
    seeds = ", ".join(map(str, result.seeds))
    said = [f"Mean ± standard deviation over the seeds {seeds}."]
    if result.num_left:
        said.insert(0, f"Not finished: {result.num_left} of {len(result.scores)} runs are left to train.")
    cells = [cell for rows in result.analysis.cells.values() for row in rows.values() for cell in row.values()]
    if any(cell.interval and cell.covers_clips for cell in cells):
        said.append("Intervals (95 %) cover the sampling of seeds (Student) and of clips (bootstrap).")
    if any(cell.interval and not cell.covers_clips for cell in cells):
        said.append("Where clips cannot be resampled, an interval covers the seeds only.")
    if any(cell.is_short for cell in cells):
        said.append("[n of m]: only n of m seeds have a value, so the cell is not comparable with the others.")
    if result.source:
        said.append(f"Published: {result.source}.")
    how = "All metrics of a run are those of one checkpoint, which the validation split selected."
    said.append(how)
    if any(cell.best_on_test is not None for cell in cells):
        kept = max(run.checkpoints for run in result.scores)
        said.append(
            f"“{BEST_ON_TEST}” takes for each metric whichever checkpoint is best on the reported clips themselves (of "
            f"at most {kept} that trainer.keep_best kept), so it is too good."
        )
    if "valid" in result.splits:
        said.append("The validation split selected the checkpoints, so scores on it are optimistic.")
    if result.small:
        said.append("--scale small: synthetic data and small models.")
    return said


def pair_rows(result: StudyResult, split: str, metric: Metric) -> Iterator[list[str]]:
    """Every variant against the reference: difference, interval, ε_min corrected."""
    for name in result.variants:
        pairs = [p for p in result.analysis.pairs[split][metric.key] if (p.a, p.b) == (name, result.reference)]
        for pair in pairs:
            difference = MISSING if pair.difference is None else number(pair.difference.mean, metric, signed=True)
            interval = interval_text(pair.difference, metric, signed=True)
            yield [name, difference, interval, epsilon_text(pair.epsilon_corrected)]


def epsilon_text(epsilon: float | None) -> str:
    """ε_min with two decimals."""
    return MISSING if epsilon is None else f"{epsilon:.2f}"


PAIR_HEADINGS = ("Variant", "Difference", "95 % interval", "ε_min")


def pair_note(result: StudyResult) -> str:
    """How to read the comparisons with the reference."""
    return (
        f"Each variant minus {result.reference}, by the same seeds and clips; better is below zero for metrics with ↓, "
        "above zero for those with ↑. ε_min: Almost Stochastic Order of the seeds' scores, corrected for all pairs "
        f"(Bonferroni); below {DOMINANCE} the variant almost dominates {result.reference}, {RECOMMENDED} is the limit "
        "that is recommended for few seeds."
    )


def markdown(result: StudyResult) -> str:
    """study.md."""
    parts = [f"# {_plain(result.title)}", *([_plain(result.about)] if result.about else [])]
    for split in result.splits:
        parts.append(f"## {SPLITS[split].capitalize()} split")
        columns, rows = table(result, split)
        parts.append(_markdown_table(columns, rows))
        for metric in result.metrics:
            if found := list(pair_rows(result, split, metric)):
                parts += [f"### {heading(metric)}: difference from {_plain(result.reference)}", ""]
                parts[-1] = _markdown_table(PAIR_HEADINGS, found)
    if result.metrics:
        parts.append(" ".join(notes(result)) + " " + pair_note(result))
    if result.problems:
        parts += ["## Failed runs", "\n".join(f"- {_plain(name)}: {_plain(why)}" for name, why in result.problems)]
    return "\n\n".join(parts) + "\n"


def table(
    result: StudyResult, split: str, cell_text: Callable[[Cell, Metric], str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a split's table; by default cells have their interval."""
    cell_text = cell_text or _with_interval
    columns, rows = ["Variant"], [[name] for name in result.variants]
    for metric in result.metrics:
        columns.append(heading(metric))
        cells = [result.analysis.cells[name][split][metric.key] for name in result.variants]
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell_text(cell, metric))
        if any(cell.best_on_test is not None for cell in cells):
            columns.append(f"{metric.title}, {BEST_ON_TEST}")
            for row, cell in zip(rows, cells, strict=True):
                row.append(number(cell.best_on_test, metric))
    for metric in result.metrics:
        cells = [result.analysis.cells[name][split][metric.key] for name in result.variants]
        if any(cell.published is not None for cell in cells):
            columns.append(f"{metric.title}, published")
            for row, cell in zip(rows, cells, strict=True):
                row.append(number(cell.published, metric))
    return columns, rows


def _with_interval(cell: Cell, metric: Metric) -> str:
    interval = "" if cell.interval is None else f" ({interval_text(cell.interval, metric)})"
    return mean_text(cell, metric) + interval


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    escaped = "".join(f"\\{char}" if char in "\\`*_|<>[]#" else char for char in " ".join(text.split()))
    return escaped if set(text) - set("-:") else text


_TEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "…": r"\,\ldots\,", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\to$",
    "ε": r"$\varepsilon$", "–": "--", "“": "``", "”": "''", "’": "'",
}  # fmt: skip


def tex_text(text: str) -> str:
    """Text in LaTeX."""
    return "".join(_TEX.get(char, char) for char in " ".join(text.split()))


def latex(result: StudyResult) -> str:
    """study.tex: a table per split, for booktabs."""
    parts = ["% \\usepackage{booktabs}"]
    for split in result.splits:
        columns, rows = table(result, split, mean_text)
        caption = f"{result.title} {SPLITS[split].capitalize()} split. {' '.join(notes(result))}"
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(tex_text, columns)) + r" \\",
            r"\midrule",
            *(" & ".join(map(tex_text, row)) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{tex_text(caption)}}}",
            rf"\label{{tab:{result.name}-{split}}}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def terminal_tables(result: StudyResult) -> "Iterator[Table]":
    """Tables for a terminal, a few metrics each, and the comparison by the first metric."""
    for split in result.splits:
        for start in range(0, len(result.metrics), _PER_TABLE):
            shown = result.metrics[start : start + _PER_TABLE]
            title = f"{result.title} ({SPLITS[split]} split)" if start == 0 else ""
            table = _empty(title)
            for metric in shown:
                table.add_column(ascii_text(heading(metric)), justify="right", no_wrap=True)
            for name in result.variants:
                cells = result.analysis.cells[name][split]
                table.add_row(ascii_text(name), *(ascii_text(mean_text(cells[m.key], m)) for m in shown))
            yield table
        metric = result.metrics[0]
        if rows := list(pair_rows(result, split, metric)):
            table = _empty(f"{heading(metric)}: difference from {result.reference}")
            for column in PAIR_HEADINGS[1:]:
                table.add_column(ascii_text(column), justify="right", no_wrap=True)
            for row in rows:
                table.add_row(*map(ascii_text, row))
            yield table


def _empty(title: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(
        title=ascii_text(title) or None,
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column("", overflow="fold", max_width=30)
    return table


_ASCII = {
    "−": "-",
    "–": "-",
    "…": "to",
    "±": "+-",
    " ↓": "",
    " ↑": "",
    "→": "-to-",
    "ε": "eps",
    "“": '"',
    "”": '"',
    "’": "'",
    "×": "x",
}


def ascii_text(text: str) -> str:
    """Text for any terminal and log."""
    for char, plain in _ASCII.items():
        text = text.replace(char, plain)
    return text

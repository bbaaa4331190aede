"""Formats of metrics and quantities, on the page and in the terminal."""

import math
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vadv_dist.evaluation.description import Metric

if TYPE_CHECKING:
    from vadv_dist.reporting.run_files import RunRecord

SPLITS = {"train": "training", "valid": "validation", "test": "test"}
MISSING = "–"
# Characters for the metrics of a table; the names of outputs take up to 26 of 80.
_COLUMNS = 54
# What synthetic data sets call the inputs of their best possible scores, and what tables call them.
_INPUTS = {
    "text": "text",
    "video": "video",
    "text_and_video": "both",
    "classes": "the classes alone",
    "student": "both vectors",
    "frames": "audio and all frames",
}


def score(value: float | None, *, percent: bool) -> str:
    """A metric's value: three decimals, or percent with one; a dash if there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return (f"{value:.1%}" if percent else f"{value:.3f}").replace("-", "−")


def shown_metrics(rows: Iterable[Container[str]], metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics that an output has, by the keys of each output."""
    rows = list(rows)
    return [metric for metric in metrics if any(metric.key in row for row in rows)]


def fit_columns(rows: Iterable[Container[str]], metrics: Iterable[Metric]) -> bool:
    """Whether a column per metric reads well: each output has all metrics, and their names fit a terminal.

    Args:
        rows: keys of the metrics that each output has.
        metrics: the task's.
    """
    rows = list(rows)
    shown = shown_metrics(rows, metrics)
    width = sum(2 + max(5, len(metric.name), len(metric.convention)) for metric in shown)
    return width <= _COLUMNS and all(metric.key in row for metric in shown for row in rows)


def decimals(value: float) -> str:
    """A value of any size in four digits; 5e-05 is written 5e-5."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if exponent else mantissa).replace("-", "−")


def whole(count: int) -> str:
    """A count with thousands separated."""
    return f"{count:,}".replace(",", "\u202f")


def clips(count: int, split: str | None = None) -> str:
    """A number of clips, such as `640 test clips`."""
    kind = f"{SPLITS[split]} " if split else ""
    return f"{whole(count)} {kind}{'clip' if count == 1 else 'clips'}"


def student_of(run: "RunRecord") -> str:
    """The student of another run on the page."""
    return f"Student of {run.name}" if run.config.has_teacher else "Student trained alone"


def best_attainable(truth: Mapping[str, Any], metric: str) -> dict[str, float]:
    """The best possible scores on a synthetic data set by input, from `truth` of its `dataset.json`."""
    best = truth.get(f"best_{metric}", {})
    return {name: best[key][metric] for key, name in _INPUTS.items() if key in best}

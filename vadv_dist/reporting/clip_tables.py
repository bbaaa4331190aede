"""Tables of clips: their words, frames if there are any, labels and predictions."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vadv_dist.evaluation.description import Output
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.run_files import Scored
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING

# Frames of clips by id, as JPEG, or why there are none: from the data sets of an evaluation, and ids.
Strips = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Mapping[str, bytes | str]]


def worst_rows(evaluation: Scored, most: int = 10) -> list[int]:
    """The clips with the largest errors of the student, the worst first."""
    errors, names = evaluation.errors(evaluation.task.student), evaluation.predictions.clip_id
    return sorted(range(len(errors)), key=lambda row: (-errors[row], names[row]))[:most]


def clip_table(title: str, evaluation: Scored, rows: Sequence[int], strips: Mapping[str, bytes | str]) -> Markup:
    """What is known of these clips: words, frames, label, each output's prediction, and the student's error."""
    predictions, student = evaluation.predictions, evaluation.task.student
    errors = evaluation.errors(student)
    body: list[tuple[str | None, list[str]]] = []
    for row in rows:
        name = predictions.clip_id[row]
        words = join(tag("q", predictions.text[row]), tag("small", name), _frames(name, strips.get(name)))
        shown = [_prediction(evaluation, output, row) for output in evaluation.outputs]
        last = f"{1 - errors[row]:.1%}" if evaluation.classifies else f"{errors[row]:.2f}"
        body.append((None, [words, _label(evaluation, row), *shown, tag("b", last)]))
    last = "Probability of the label" if evaluation.classifies else "Error"
    return plain_table(title, ("Words", "Label", *(output.title for output in evaluation.outputs), last), body)


def _frames(name: str, strip: bytes | str | None) -> Markup:
    if strip is None:
        return Markup("")
    if isinstance(strip, str):
        return tag("small", f"no frames: {strip}")
    data = base64.b64encode(strip).decode()
    return tag("img", src=f"data:image/jpeg;base64,{data}", alt=f"Frames of {name}", class_="strip")


def _label(evaluation: Scored, row: int) -> str:
    label = evaluation.predictions.label[row]
    return evaluation.task.classes[int(label)] if evaluation.classifies else _number(label, evaluation.scale.low < 0)


def _prediction(evaluation: Scored, output: Output, row: int) -> str:
    values = evaluation.predictions.values[output.name][row]
    if not evaluation.classifies:
        return _number(float(values), evaluation.scale.low < 0)
    if np.isnan(values).any():
        return MISSING
    best = int(np.argmax(values))
    return f"{evaluation.task.classes[best]} ({values[best]:.0%})"


def _number(value: float, signed: bool) -> str:
    """A label or a logit in two decimals."""
    if np.isnan(value):
        return MISSING
    text = f"{value:+.2f}".replace("+0.00", "0.00") if signed else f"{value:.2f}"
    return text.replace("-", "−")

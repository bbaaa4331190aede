"""Pictures of a training: each loss term, validation and speed over its steps."""

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from vadv_dist.evaluation.description import Output, Term
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.pictures import Picture, Point, number, thin
from vadv_dist.reporting.run_files import RunRecord, value
from vadv_dist.reporting.style import role_of
from vadv_dist.reporting.words import decimals
from vadv_dist.runs.records import EpochLine, StepLine

# A log scale shows a term that falls by more than this factor.
_LOG_FROM = 8.0
# More epochs than this are a line without dots, or with smaller ones.
_MANY_DOTS = 40
# Title and explanation of what is logged besides the terms.
_RATES = {"lr": ("Learning rate", "of pretrained weights"), "grad_norm": ("Gradient norm", "before clipping")}


@dataclass(frozen=True)
class Curve:
    """One value over a training: as logged, and its mean over each epoch with what to call the epoch."""

    logged: list[Point]
    means: list[Point]
    epochs: list[str]


def loss_pictures(run: RunRecord) -> list[Picture]:
    """One picture per unweighted term that the run has, then the weighted total."""
    averaged = dict.fromkeys(name for line in run.epochs for name in line.train)
    pictures = []
    for name in dict.fromkeys((*(term.name for term in run.task.terms), *averaged)):
        curve = _curve(run, name)
        if name == "total" or curve is None:
            continue
        term = run.task.term(name)
        note = tag("span", _symbol(term), _weight_note(run, term))
        pictures.append(_curve_picture(run, curve, f"term-{name}", term.title, note))
    if total := _curve(run, "total"):
        pictures.append(_curve_picture(run, total, "term-total", "Total", "all terms, weighted"))
    return pictures


def optimizer_pictures(run: RunRecord) -> list[Picture]:
    """Learning rate and gradient norm, where they were logged."""
    return [
        _curve_picture(run, curve, name, title, note, log=False)
        for name, (title, note) in _RATES.items()
        if (curve := _curve(run, name))
    ]


def validation_picture(run: RunRecord) -> Picture | None:
    """The score of every output after each epoch; None before the first."""
    metric, student = run.task.score_metric, run.task.student
    series = {output: points for output in run.task.outputs if (points := validation_points(run, output))}
    if student not in series:
        return None
    values = [at for points in series.values() for _, at in points]
    spread = max(values) - min(values)
    picture = Picture("validation", f"Validation {metric.title}")
    _frame(picture, run, (min(values) - spread * 0.2, max(values) + spread * 0.05))
    epochs = {line.step: line.epoch + 1 for line in run.epochs}
    for output, points in reversed(series.items()):
        role = role_of(run.task, output)
        titles = [f"{output.title}, epoch {epochs[int(step)]}: {at:.3f}" for step, at in points]
        picture.line(points, role)
        picture.dots(points, role, titles, radius=2.5 if len(points) <= _MANY_DOTS else 1.5)
    best_step, best = _best(run, series[student])
    title = f"Best checkpoint: step {best_step}, {metric.title} {best:.3f}"
    picture.dots([(best_step, best)], "ink", [title], radius=6, hollow=True)
    right = best_step > picture.axes.get_xlim()[1] / 2
    offset, side = ((-9, -6), "right") if right else ((9, -6), "left")
    picture.text(best_step, best, f"best {best:.3f}", offset=offset, ha=side, va="top")
    ends = ", ".join(f"{output.title.lower()} ends at {points[-1][1]:.3f}" for output, points in series.items())
    picture.label = f"{picture.caption} by step: {ends}. Best of the student: {best:.3f} at step {best_step}."
    picture.keys = [(output.title, role_of(run.task, output)) for output in series]
    return picture


def validation_points(run: RunRecord, output: Output) -> list[Point]:
    """Step and validation score of one output after each epoch that scored it."""
    return _points((line, value(line.validation, run.task, output.name)) for line in run.epochs)


def _symbol(term: Term) -> Markup:
    if not term.symbol:
        return Markup()
    return join(Markup("<i>L</i>"), tag("sub", term.symbol), tag("sup", term.mark) if term.mark else "")


def _weight_note(run: RunRecord, term: Term) -> str:
    """The weight of a term: a fixed one, or from where to where the one that training found has gone."""
    letter = _greek(term.weight)
    if not letter or run.weighting == "fixed":
        weight = _finite(run.section("objective").get(term.weight))
        return "" if not letter or weight is None else f" · weight {letter} = {weight:g}"
    found = [w for line in run.epochs if (w := _finite(line.weights.get(term.name))) is not None]
    return f" · weight {letter} {decimals(found[0])} → {decimals(found[-1])}" if found else f" · no {letter}"


def _greek(name: str) -> str:
    """The letter of a Greek name; other names as they are."""
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {name}")
    except KeyError:
        return name


def _curve(run: RunRecord, name: str) -> Curve | None:
    means, epochs, start = [], [], 0
    for line in run.epochs:
        if (mean := _finite(line.train.get(name))) is not None:
            # In the middle of its epoch, where the logged steps have that mean.
            means.append(((start + line.step) / 2, mean))
            epochs.append(f"Epoch {line.epoch + 1}")
        start = line.step
    logged = _points((line, line.terms.get(name, line.rates.get(name))) for line in run.steps)
    return Curve(logged, means, epochs) if logged or means else None


def _curve_picture(run: RunRecord, curve: Curve, name: str, title: str, note: str, *, log: bool = True) -> Picture:
    """Every logged step thin, the mean of each epoch bold."""
    values = [value for _, value in (*curve.logged, *curve.means)]
    low, high = min(values), max(values)
    log = log and low > 0 and high / low > _LOG_FROM
    picture = Picture(name, title)
    _frame(picture, run, (low, high) if log else (min(low, 0.0), high), log=log)
    if curve.means:
        picture.line(thin(curve.logged), "label", width=1, alpha=0.55)
        picture.line(curve.means, "ink")
        if len(curve.means) <= _MANY_DOTS:
            means = zip(curve.epochs, curve.means, strict=True)
            picture.dots(curve.means, "ink", [f"{epoch}: {decimals(mean)}" for epoch, (_, mean) in means])
    else:
        picture.line(thin(curve.logged), "ink", width=1.1)
    shown = curve.means or curve.logged
    picture.label = f"{title} by step, from {number(shown[0][1])} to {number(shown[-1][1])}."
    picture.note = join(note, tag("span", "log scale", class_="tag") if log else "")
    return picture


def _frame(picture: Picture, run: RunRecord, values: Point, *, log: bool = False) -> None:
    last = max(line.step for line in (*run.steps, *run.epochs))
    picture.frame((0, last), values, x_label="step", log_y=log, whole_x=True)


def _best(run: RunRecord, student: list[Point]) -> Point:
    best_step = run.result.best_step if run.result is not None else None
    chosen = [point for point in student if point[0] == best_step]
    return chosen[0] if chosen else min(student, key=lambda point: run.task.score_metric.cost(point[1]))


def _points(values: Iterable[tuple[StepLine | EpochLine, object]]) -> list[Point]:
    """Step and value, where the value is a finite number."""
    return [(line.step, y) for line, at in values if (y := _finite(at)) is not None]


def _finite(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None

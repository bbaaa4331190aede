"""Figures of a training: each loss term, validation and speed over its steps."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from vadv_dist.evaluation.description import Output, Term
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.run_files import RunRecord, value
from vadv_dist.reporting.svg import Axes, Point, axes, drawing, number, thin
from vadv_dist.reporting.words import decimals
from vadv_dist.runs.records import EpochLine, StepLine

WIDTH, HEIGHT = 320, 190

# A log scale shows a term that falls by more than this factor.
_LOG_FROM = 8.0
# More epochs than this are drawn with smaller dots.
_MANY_DOTS = 40


@dataclass(frozen=True)
class Curve:
    """One value over a training: as logged, and its mean over each epoch with what to call the epoch."""

    logged: list[Point]
    means: list[Point]
    epochs: list[str]


_WEIGHT_LETTERS = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "psi": "ψ"}
_OPTIMIZER = {"lr": "Learning rate", "grad_norm": "Gradient norm"}


def loss_figures(run: RunRecord) -> list[Markup]:
    """One figure per unweighted term that the run has, then the weighted total."""
    averaged = dict.fromkeys(name for line in run.epochs for name in line.train)
    figures = []
    for name in dict.fromkeys((*(term.name for term in run.task.terms), *averaged)):
        curve = _curve(run, name)
        if name == "total" or curve is None:
            continue
        term = run.task.term(name)
        note = tag("span", _symbol(term), _weight_note(run, term))
        figures.append(_curve_figure(run, curve, term.title, note))
    if total := _curve(run, "total"):
        figures.append(_curve_figure(run, total, "Total", "all terms, weighted"))
    return figures


def optimizer_figures(run: RunRecord) -> list[Markup]:
    """Learning rate and gradient norm, where they were logged."""
    notes = {"lr": "of pretrained weights", "grad_norm": "before clipping"}
    curves = ((name, title, _curve(run, name)) for name, title in _OPTIMIZER.items())
    return [_curve_figure(run, curve, title, notes[name], log=False) for name, title, curve in curves if curve]


def validation_figure(run: RunRecord) -> Markup:
    """The score of every output after each epoch; empty before the first."""
    metric, student = run.task.score_metric, run.task.student
    series = {output: points for output in run.task.outputs if (points := validation_points(run, output))}
    if student not in series:
        return Markup()
    values = [at for points in series.values() for _, at in points]
    spread = max(values) - min(values)
    area = _axes(run, (min(values) - spread * 0.2, max(values) + spread * 0.05))
    epochs = {line.step: line.epoch + 1 for line in run.epochs}
    parts: list[str] = [area.frame(x_label="step")]
    for output, points in reversed(series.items()):
        parts.append(area.line(points, output.name))
        for step, at in points:
            where = f"{output.title}, epoch {epochs[int(step)]} (step {step}): {metric.title} {at:.3f}"
            parts.append(area.dot((step, at), f"point {output.name}", _radius(points), where))
    best_step, best = _best(run, series[student])
    told = f"Best checkpoint: step {best_step}, {metric.title} {best:.3f}"
    parts.append(area.dot((best_step, best), "best", 6, told))
    right = best_step > area.x.high / 2
    beside = {"x": area.x(best_step) + (-9 if right else 9), "text_anchor": "end" if right else "start"}
    parts.append(tag("text", f"best {best:.3f}", class_="tick", y=area.y(best) + 13, **beside))
    ends = ", ".join(f"{output.title.lower()} ends at {points[-1][1]:.3f}" for output, points in series.items())
    title = f"Validation {metric.title}"
    label = f"{title} by step: {ends}. Best of the student: {best:.3f} at step {best_step}."
    keys = [tag("span", output.title, class_=f"key {output.name}") for output in series]
    return figure(title, join(*keys), drawing(area, label, *parts))


def validation_points(run: RunRecord, output: Output) -> list[Point]:
    """Step and validation score of one output after each epoch that scored it."""
    return _points((line, value(line.validation, run.task, output.name)) for line in run.epochs)


def figure(title: str, note: str, image: str) -> Markup:
    """A drawing under its title and a note."""
    return tag("figure", tag("figcaption", tag("b", title), tag("span", note, class_="note")), image)


def _symbol(term: Term) -> Markup:
    if not term.symbol:
        return Markup()
    return join(Markup("<i>L</i>"), tag("sub", term.symbol), tag("sup", term.mark) if term.mark else "")


def _weight_note(run: RunRecord, term: Term) -> str:
    """The weight of a term: a fixed one, or from where to where the one that training found has gone."""
    letter = _WEIGHT_LETTERS.get(term.weight)
    if letter is None or run.weighting == "fixed":
        weight = _finite(run.section("objective").get(term.weight))
        return "" if letter is None or weight is None else f" · weight {letter} = {weight:g}"
    found = [w for line in run.epochs if (w := _finite(line.weights.get(term.name))) is not None]
    return f" · weight {letter} {decimals(found[0])} → {decimals(found[-1])}" if found else f" · no {letter}"


def _curve(run: RunRecord, name: str) -> Curve | None:
    means, epochs, start = [], [], 0
    for line in run.epochs:
        if (mean := _finite(line.train.get(name))) is not None:
            # In the middle of its epoch, where the logged steps have that mean.
            means.append(((start + line.step) / 2, mean))
            epochs.append(f"Epoch {line.epoch + 1} (to step {line.step})")
        start = line.step
    logged = _points((line, line.terms.get(name, line.rates.get(name))) for line in run.steps)
    return Curve(logged, means, epochs) if logged or means else None


def _curve_figure(run: RunRecord, curve: Curve, title: str, note: str, *, log: bool = True) -> Markup:
    """Every logged step thin, the mean of each epoch bold."""
    values = [value for _, value in (*curve.logged, *curve.means)]
    low, high = min(values), max(values)
    log = log and low > 0 and high / low > _LOG_FROM
    area = _axes(run, (low, high) if log else (min(low, 0.0), high), log=log)
    parts: list[str] = [area.frame(x_label="step")]
    parts.append(area.line(thin(curve.logged), "logged" if curve.means else "only"))
    parts.append(area.line(curve.means, "mean"))
    for point, epoch in zip(curve.means, curve.epochs, strict=True):
        parts.append(area.dot(point, "point mean", _radius(curve.means), f"{epoch}: mean {decimals(point[1])}"))
    shown = curve.means or curve.logged
    label = f"{title} by step, from {number(shown[0][1])} to {number(shown[-1][1])}."
    scale = tag("span", "log scale", class_="tag") if log else ""
    return figure(title, join(note, scale), drawing(area, label, *parts))


def _axes(run: RunRecord, values: tuple[float, float], *, log: bool = False) -> Axes:
    last = max(line.step for line in (*run.steps, *run.epochs))
    return axes(WIDTH, HEIGHT, (0, last), values, log_y=log)


def _radius(points: list[Point]) -> float:
    return 2.5 if len(points) <= _MANY_DOTS else 1.5


def _best(run: RunRecord, student: list[Point]) -> Point:
    best_step = run.result.best_step if run.result is not None else None
    chosen = [point for point in student if point[0] == best_step]
    return chosen[0] if chosen else min(student, key=lambda point: point[1])


def _points(values: Iterable[tuple[StepLine | EpochLine, object]]) -> list[Point]:
    """Step and value, where the value is a finite number."""
    return [(line.step, y) for line, at in values if (y := _finite(at)) is not None]


def _finite(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None

"""Figures of a training: each loss term, validation and speed over its steps."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.run_files import LOGIT_COLUMNS, Record, RunRecord
from vadv_dist.reporting.svg import Axes, Point, axes, drawing, number, thin
from vadv_dist.reporting.words import READERS, decimals

WIDTH, HEIGHT = 320, 190

# A log scale shows a term that falls by more than this factor.
_LOG_FROM = 8.0
# More epochs than this are drawn with smaller dots.
_MANY_DOTS = 40


@dataclass(frozen=True)
class Term:
    """A loss term of `metrics.jsonl`: what to call it, its symbol and its weight's name in the config."""

    title: str
    symbol: str = ""
    weight: str = ""


@dataclass(frozen=True)
class Curve:
    """One value over a training: as logged, and its mean over each epoch with what to call the epoch."""

    logged: list[Point]
    means: list[Point]
    epochs: list[str]


def _symbol(of: str, kind: str = "") -> Markup:
    return join(Markup("<i>L</i>"), tag("sub", of), tag("sup", kind) if kind else "")


# Equations 10 to 14 of VideoAdviser (arXiv:2309.15494).
TERMS = {
    "text_regression": Term("Text logit to label", _symbol("t", "(r)"), "beta"),
    "video_regression": Term("Video logit to label", _symbol("v", "(r)"), "alpha"),
    "video_classification": Term("Class of the label", _symbol("v", "(c)"), "gamma"),
    "prompt_to_video": Term("Step 1: prompt to video logit", _symbol("p→v"), "delta"),
    "video_to_text": Term("Step 2: video to text logit", _symbol("v→t"), "psi"),
}
_WEIGHT_LETTERS = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "psi": "ψ"}
_OPTIMIZER = {"lr": "Learning rate", "grad_norm": "Gradient norm"}


def loss_figures(run: RunRecord) -> list[Markup]:
    """One figure per unweighted term that the run has, then the weighted total."""
    averaged = dict.fromkeys(name for record in run.epochs for name in _part(record, "train"))
    figures = []
    for name in dict.fromkeys((*TERMS, *averaged)):
        curve = _curve(run, name)
        if name == "total" or curve is None:
            continue
        term = TERMS.get(name, Term(name.replace("_", " ").capitalize()))
        weighted = _weight_note(run, name, term)
        note = tag("span", term.symbol, weighted)
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
    """MAE of the student and of the teacher's logits after each epoch; empty before the first."""
    series = {reader: points for reader in LOGIT_COLUMNS if (points := validation_points(run, reader))}
    if "student" not in series:
        return Markup()
    values = [mae for points in series.values() for _, mae in points]
    spread = max(values) - min(values)
    area = _axes(run, (min(values) - spread * 0.2, max(values) + spread * 0.05))
    epochs = {record["step"]: _counted(record.get("epoch")) for record in run.epochs}
    parts: list[str] = [area.frame(x_label="step")]
    for reader, points in reversed(series.items()):
        parts.append(area.line(points, reader))
        for step, mae in points:
            where = f"{READERS[reader]}, epoch {epochs[step]} (step {step}): MAE {mae:.3f}"
            parts.append(area.dot((step, mae), f"point {reader}", _radius(points), where))
    best_step, best = _best(run, series["student"])
    parts.append(area.dot((best_step, best), "best", 6, f"Best checkpoint: step {best_step}, MAE {best:.3f}"))
    right = best_step > area.x.high / 2
    beside = {"x": area.x(best_step) + (-9 if right else 9), "text_anchor": "end" if right else "start"}
    parts.append(tag("text", f"best {best:.3f}", class_="tick", y=area.y(best) + 13, **beside))
    ends = ", ".join(f"{READERS[reader].lower()} ends at {points[-1][1]:.3f}" for reader, points in series.items())
    label = f"Validation MAE by step: {ends}. Best of the student: {best:.3f} at step {best_step}."
    keys = [tag("span", READERS[reader], class_=f"key {reader}") for reader in series]
    return figure("Validation MAE", join(*keys), drawing(area, label, *parts))


def validation_points(run: RunRecord, reader: str) -> list[Point]:
    """Step and validation MAE of one reader after each epoch that scored it."""
    return _points((record, _part(_part(record, "validation"), reader).get("mae")) for record in run.epochs)


def figure(title: str, note: str, image: str) -> Markup:
    """A drawing under its title and a note."""
    return tag("figure", tag("figcaption", tag("b", title), tag("span", note, class_="note")), image)


def _weight_note(run: RunRecord, name: str, term: Term) -> str:
    """The weight of a term: a fixed one, or from where to where the one that training found has gone."""
    letter = _WEIGHT_LETTERS.get(term.weight)
    method = run.section("objective").get("weighting", "fixed")
    if letter is None or method == "fixed":
        weight = _finite(run.section("objective").get(term.weight))
        return "" if letter is None or weight is None else f" · weight {letter} = {weight:g}"
    found = [value for record in run.epochs if (value := _finite(_part(record, "weights").get(name))) is not None]
    return f" · weight {letter} {decimals(found[0])} → {decimals(found[-1])}" if found else f" · no {letter}"


def _counted(epoch: object) -> object:
    """An epoch as people count, from 1; the log counts from 0."""
    return epoch + 1 if isinstance(epoch, int) else epoch


def _curve(run: RunRecord, name: str) -> Curve | None:
    means, epochs, start = [], [], 0
    for record in run.epochs:
        if (mean := _finite(_part(record, "train").get(name))) is not None:
            # In the middle of its epoch, where the logged steps have that mean.
            means.append(((start + record["step"]) / 2, mean))
            epochs.append(f"Epoch {_counted(record.get('epoch'))} (to step {record['step']})")
        start = record["step"]
    logged = _points((record, record.get(name)) for record in run.steps)
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
    last = max(record["step"] for record in (*run.steps, *run.epochs))
    return axes(WIDTH, HEIGHT, (0, last), values, log_y=log)


def _radius(points: list[Point]) -> float:
    return 2.5 if len(points) <= _MANY_DOTS else 1.5


def _best(run: RunRecord, student: list[Point]) -> Point:
    best_step = (run.result or {}).get("best_step")
    chosen = [point for point in student if point[0] == best_step]
    return chosen[0] if chosen else min(student, key=lambda point: point[1])


def _points(values: Iterable[tuple[Record, object]]) -> list[Point]:
    """Step and value, where the value is a finite number."""
    return [(record["step"], y) for record, value in values if (y := _finite(value)) is not None]


def _finite(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _part(record: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = record.get(name)
    return part if isinstance(part, Mapping) else {}

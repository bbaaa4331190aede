"""Plots of a training: loss terms, validation and speed by step."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vadv_dist.evaluation.description import Metric, Output, Term
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.pictures import Picture, Point, number, thin, with_room
from vadv_dist.reporting.run_files import RunRecord
from vadv_dist.reporting.style import role_of
from vadv_dist.reporting.words import decimals
from vadv_dist.runs.records import EpochLine, StepLine

# A term that falls by more than this factor is shown on a log scale.
_LOG_FROM = 8.0
# With more epochs than this, lines have no dots, or smaller ones.
_MANY_DOTS = 40
# Title and explanation of what is logged besides the terms.
_RATES = {"lr": ("Learning rate", "optimizer.lr by its schedule"), "grad_norm": ("Gradient norm", "before clipping")}


@dataclass(frozen=True)
class Curve:
    """One value over a training: as logged, and its mean over each epoch, with the epochs' names."""

    logged: list[Point]
    means: list[Point]
    epochs: list[str]


def loss_pictures(run: RunRecord) -> list[Picture]:
    """One picture per unweighted term that the run has, then the weighted total."""
    averaged = dict.fromkeys(name for line in run.epochs for name in line.train)
    pictures = []
    for name in dict.fromkeys((*(term.name for term in run.task.terms), *averaged)):
        if name != "total" and (curve := _curve(run, name)):
            term = run.task.term(name)
            note = tag("span", _symbol(term), _weight_note(run, term))
            pictures.append(_curve_picture(run, curve, f"term-{name}", term.title, note))
    if total := _curve(run, "total"):
        pictures.append(_curve_picture(run, total, "term-total", "Total", "all terms, weighted"))
    return pictures


def optimizer_pictures(run: RunRecord) -> list[Picture]:
    """Learning rate and gradient norm, if they were logged."""
    return [
        _curve_picture(run, curve, name, title, note, log=False)
        for name, (title, note) in _RATES.items()
        if (curve := _curve(run, name))
    ]


def validation_pictures(run: RunRecord) -> list[Picture]:
    """The score of every output after each epoch, and the first metric of outputs without one; none before an epoch."""
    by_metric: dict[Metric, list[Output]] = {}
    for output in run.task.outputs:
        scored = {key for line in run.epochs for key in line.validation.get(output.name, {})}
        by_metric.setdefault(run.task.first_metric(scored), []).append(output)
    pictures = (_validation_picture(run, metric, outputs) for metric, outputs in by_metric.items())
    return [picture for picture in pictures if picture is not None]


def _validation_picture(run: RunRecord, metric: Metric, outputs: Sequence[Output]) -> Picture | None:
    is_score = metric == run.task.score_metric
    series = {output: points for output in outputs if (points := validation_points(run, output, metric))}
    if not series:
        return None
    values = [at for points in series.values() for _, at in points]
    spread = max(values) - min(values)
    name = "validation" if is_score else f"validation-{metric.key}"
    picture = Picture(name, f"Validation {metric.title}")
    # Room for the mark of the best point, on the side where the curve does not pass.
    below, above = (0.15, 0.0) if metric.lower_is_better else (0.0, 0.15)
    _frame(picture, run, (min(values) - spread * below, max(values) + spread * above))
    epochs = {line.step: line.epoch + 1 for line in run.epochs}
    for output, points in reversed(series.items()):
        role = role_of(run.task, output)
        titles = [f"{output.title}, epoch {epochs[int(step)]}: {at:.3f}" for step, at in points]
        picture.line(points, role)
        picture.dots(points, role, titles, radius=2.5 if len(points) <= _MANY_DOTS else 1.5)
    ends = ", ".join(f"{output.title.lower()} ends at {points[-1][1]:.3f}" for output, points in series.items())
    picture.label = f"{picture.caption} by step: {ends}."
    picture.keys = [(output.title, role_of(run.task, output)) for output in series]
    if is_score and run.task.student in series:
        _mark_best(picture, metric, series[run.task.student])
    return picture


def _mark_best(picture: Picture, metric: Metric, points: Sequence[Point]) -> None:
    """Mark the checkpoint that is kept."""
    best_step, best = min(points, key=lambda point: metric.cost(point[1]))
    picture.dots(
        [(best_step, best)],
        "ink",
        [f"Best checkpoint: step {best_step}, {metric.title} {best:.3f}"],
        radius=6,
        hollow=True,
    )
    right = best_step > picture.axes.get_xlim()[1] / 2
    offset = (-9 if right else 9, -6 if metric.lower_is_better else 6)
    side, end = "right" if right else "left", "top" if metric.lower_is_better else "bottom"
    picture.text(best_step, best, f"best {best:.3f}", offset=offset, ha=side, va=end)
    picture.label += f" Best of the student: {best:.3f} at step {best_step}."


def validation_points(run: RunRecord, output: Output, metric: Metric | None = None) -> list[Point]:
    """Step and validation metric, by default the score, of one output after each epoch that has it."""
    key = run.task.score if metric is None else metric.key
    return _points((line, line.validation.get(output.name, {}).get(key)) for line in run.epochs)


def _symbol(term: Term) -> Markup:
    if not term.symbol:
        return Markup()
    return join(Markup("<i>L</i>"), tag("sub", term.symbol), tag("sup", term.mark) if term.mark else "")


def _weight_note(run: RunRecord, term: Term) -> str:
    """The weight of a term: the configured one, or those of the first and the last epoch if training determines it."""
    letter, objective = _greek(term.weight), run.config.objective
    weights = [weight for line in run.epochs if (weight := line.weights.get(term.name)) is not None]
    if weights:
        return f" · weight {letter} {decimals(weights[0])} → {decimals(weights[-1])}"
    if not hasattr(objective, term.weight):
        return ""
    if objective.kind == "none" or objective.weighting.kind == "fixed":
        factors = [line.distillation for line in run.epochs if line.distillation is not None and term.distils]
        times = f" × {decimals(factors[0])} → {decimals(factors[-1])}" if factors else ""
        return f" · weight {letter} = {getattr(objective, term.weight):g}{times}"
    return f" · no {letter}"


def _greek(name: str) -> str:
    """The letter with a Greek name; other names are unchanged."""
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {name}")
    except KeyError:
        return name


def _curve(run: RunRecord, name: str) -> Curve | None:
    means, epochs, start = [], [], 0
    for line in run.epochs:
        if (mean := line.train.get(name)) is not None:
            # In the middle of the epoch, whose logged steps have this mean.
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
        if len(curve.logged) == 1:  # of which a line shows nothing
            picture.dots(curve.logged, "ink", [f"step {step:g}: {decimals(value)}" for step, value in curve.logged])
    shown = curve.means or curve.logged
    picture.label = f"{title} by step, from {number(shown[0][1])} to {number(shown[-1][1])}."
    picture.note = note
    return picture


def _frame(picture: Picture, run: RunRecord, values: Point, *, log: bool = False) -> None:
    last = max(line.step for line in (*run.steps, *run.epochs))
    picture.frame((0, last), with_room(*values, log=log), x_label="step", log_y=log, whole_x=True)


def _points(values: Iterable[tuple[StepLine | EpochLine, float | None]]) -> list[Point]:
    """Step and value, without missing values."""
    return [(line.step, value) for line, value in values if value is not None]

"""Figures of a search: its history, what was stopped, each field by itself and all of them together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from vadv_dist.reporting.curves import figure
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.svg import Axes, Point, Scale, axes, drawing, linear_ticks, number
from vadv_dist.reporting.words import decimals
from vadv_dist.tuning.space import Entry, Value
from vadv_dist.tuning.study import course

_WIDE, _HIGH = 660, 260
_SMALL_WIDE, _SMALL_HIGH = 320, 190


@dataclass(frozen=True)
class _FieldScale(Scale):
    """A scale whose ticks begin at `first`: what lies before stands for zero."""

    first: float = -math.inf

    def ticks(self, count: int) -> list[float]:
        """See `Scale`."""
        return [value for value in super().ticks(count) if value >= self.first]


def reached(trial: FrozenTrial) -> float | None:
    """MAE of a trial: the best of its epochs if it ended, the last one's if it was stopped."""
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    if trial.state == TrialState.PRUNED and (known := course(trial)):
        return known[max(known)]
    return None


def history_figure(trials: Sequence[FrozenTrial]) -> Markup:
    """MAE by trial, and the best so far."""
    seen = [(trial, mae) for trial in trials if (mae := reached(trial)) is not None]
    if not seen:
        return Markup()
    low, high = _range([mae for _, mae in seen])
    area = axes(_WIDE, _HIGH, (0, max(len(trials) - 1, 1)), (low, high))
    best = math.inf
    steps: list[Point] = []
    for trial, mae in seen:
        if trial.state == TrialState.COMPLETE and mae < best:
            if steps:
                steps.append((float(trial.number), best))
            best = mae
            steps.append((float(trial.number), best))
    if steps:
        steps.append((float(len(trials) - 1), best))
    parts: list[str] = [area.frame(x_label="trial"), area.line(steps, "mean")]
    for trial, mae in seen:
        parts.append(area.dot((trial.number, mae), _class(trial), _radius(len(seen)), _title(trial, mae)))
    for trial in trials:
        if trial.state == TrialState.FAIL:
            x, y = area.x(trial.number), area.y.end + 8
            why = trial.user_attrs.get("failure", {}).get("kind", "failed")
            parts.append(
                tag(
                    "text",
                    tag("title", f"trial {trial.number}: {why}"),
                    "×",
                    class_="tick",
                    x=x,
                    y=y,
                    text_anchor="middle",
                )
            )
    label = f"Validation MAE by trial; the best of those that ended is {best:.4f}."
    return figure("Validation MAE of each trial", _keys(), drawing(area, label, *parts))


def curves_figure(trials: Sequence[FrozenTrial]) -> Markup:
    """MAE by epoch of every trial; those that were stopped end in a mark."""
    known = [trial for trial in trials if course(trial)]
    if not known:
        return Markup()
    values = [mae for trial in known for mae in course(trial).values()]
    area = axes(_WIDE, _HIGH, (0, max(step for trial in known for step in course(trial))), _range(values))
    parts: list[str] = [area.frame(x_label="epoch")]
    for trial in sorted(known, key=lambda trial: trial.state == TrialState.COMPLETE):
        points = [(float(step), mae) for step, mae in sorted(course(trial).items())]
        stopped = trial.state == TrialState.PRUNED
        parts.append(area.line(points, "logged" if stopped else "student"))
        parts.append(area.dot(points[-1], _class(trial), 3, _title(trial, points[-1][1])))
    stopped_count = sum(trial.state == TrialState.PRUNED for trial in known)
    label = f"Validation MAE by epoch of {len(known)} trials, {stopped_count} of them stopped."
    return figure("Validation MAE by epoch", _keys(), drawing(area, label, *parts))


def slice_figures(trials: Sequence[FrozenTrial], entries: Sequence[Entry]) -> list[Markup]:
    """MAE by the value of each field."""
    figures = []
    for entry in entries:
        seen = [(t, mae) for t in trials if entry.field in t.params and (mae := reached(t)) is not None]
        if not seen:
            continue
        base = axes(_SMALL_WIDE, _SMALL_HIGH, (0, 1), _range([mae for _, mae in seen]))
        area = Axes(_scale(entry, base.x.start, base.x.end), base.y, base.width, base.height)
        parts: list[str] = [area.frame(x_label=entry.field), _zero(entry, area)]
        if entry.kind == "categorical":
            for place, choice in enumerate(entry.choices):
                x, y = area.x(place), area.height - 19
                parts.append(tag("text", str(choice), class_="tick", x=x, y=y, text_anchor="middle"))
        for trial, mae in seen:
            at = (_place(entry, trial.params[entry.field]), mae)
            parts.append(area.dot(at, _class(trial), _radius(len(seen)), _title(trial, mae)))
        label = f"Validation MAE by {entry.field}."
        note = tag("span", "log scale", class_="tag") if entry.log else ""
        figures.append(figure(entry.field, note, drawing(area, label, *parts)))
    return figures


def parallel_figure(trials: Sequence[FrozenTrial], entries: Sequence[Entry]) -> Markup:
    """One line per trial over an axis per field and one for the MAE; the better, the darker."""
    seen = [(t, mae) for t in trials if (mae := reached(t)) is not None]
    if len(seen) < 2:
        return Markup()
    low, high = _range([mae for _, mae in seen])
    last = Scale(low, high, _HIGH - 34, 12)
    gap = (_WIDE - 90) / len(entries)
    scales = [_scale(entry, _HIGH - 34, 12) for entry in entries]
    parts: list[str] = []
    for place, (entry, scale) in enumerate(zip(entries, scales, strict=True)):
        parts.append(_upright(40 + place * gap, scale, entry.field.split(".")[-1], _labels(entry, scale)))
    ticks = [(value, number(value)) for value in linear_ticks(low, high, 5)]
    parts.append(_upright(40 + len(entries) * gap, last, "MAE", ticks))
    ranked = sorted(seen, key=lambda pair: -pair[1])
    for rank, (trial, mae) in enumerate(ranked):
        points = [
            (40 + place * gap, scale(_place(entry, trial.params[entry.field])))
            for place, (entry, scale) in enumerate(zip(entries, scales, strict=True))
            if entry.field in trial.params
        ]
        points.append((40 + len(entries) * gap, last(mae)))
        path = "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
        best = rank == len(ranked) - 1
        strength = f"opacity:{0.1 + 0.7 * (rank + 1) / len(ranked):.2f}"
        title = tag("title", _title(trial, mae))
        class_ = "line mean" if best else "line student"
        parts.append(tag("path", title, d=path, class_=class_, style=None if best else strength))
    area = Axes(Scale(0, 1, 0, _WIDE), last, _WIDE, _HIGH)
    label = f"Values of {len(seen)} trials on {len(entries)} axes, with their validation MAE."
    return figure("All fields together", "black: the best; fainter: a larger MAE", drawing(area, label, *parts))


def importance_bars(shares: Mapping[str, float]) -> Markup:
    """Shares as bars, in a table."""
    rows = []
    for name, share in shares.items():
        left = tag("i", class_="whisker student", style=f"left:0;width:{100 * share:.2f}%")
        mark = tag("i", class_="mark student", style=f"left:{100 * share:.2f}%")
        bar = tag("td", tag("div", left, mark, class_="track"), class_="wide", aria_hidden="true")
        cells = [tag("th", tag("code", name), scope="row"), tag("td", f"{share:.0%}", class_="number strong"), bar]
        rows.append(tag("tr", *cells))
    return tag("table", tag("tbody", *rows), class_="errors")


def _upright(x: float, scale: Scale, name: str, ticks: Sequence[tuple[float, str]]) -> Markup:
    """A vertical axis with its name below."""
    parts = [tag("line", class_="axis", x1=x, x2=x, y1=scale.start, y2=scale.end)]
    for value, text in ticks:
        parts.append(tag("text", text, class_="tick", x=x + 5, y=scale(value) + 3.5))
    parts.append(tag("text", name, class_="tick", x=x, y=_HIGH - 8, text_anchor="middle"))
    return join(*parts)


def _labels(entry: Entry, scale: Scale) -> list[tuple[float, str]]:
    if entry.kind == "categorical":
        return [(float(place), str(choice)) for place, choice in enumerate(entry.choices)]
    labels = [(value, number(value)) for value in scale.ticks(5)]
    return [(math.sqrt(entry.floor * entry.low), "0"), *labels] if entry.zero else labels


def _scale(entry: Entry, start: float, end: float) -> Scale:
    if entry.kind == "categorical":
        return _FieldScale(-0.5, len(entry.choices) - 0.5, start, end, first=math.inf)
    return _FieldScale(entry.floor, entry.high, start, end, log=entry.log, first=entry.low * 0.999)


def _place(entry: Entry, parameter: Value) -> float:
    """Where a parameter lies on its scale; all that stands for zero lies in one place."""
    if entry.kind == "categorical":
        return float(entry.choices.index(parameter))
    place = entry.parameter(entry.value(parameter))
    assert isinstance(place, int | float)
    return float(place)


def _zero(entry: Entry, area: Axes) -> Markup:
    """The name of the stretch that stands for zero, and where it ends."""
    if not entry.zero:
        return Markup()
    at, edge = area.x(math.sqrt(entry.floor * entry.low)), area.x(entry.low)
    name = tag("text", "0", class_="tick", x=at, y=area.height - 21, text_anchor="middle")
    return join(tag("line", class_="grid", x1=edge, x2=edge, y1=area.y.start, y2=area.y.end), name)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the best value to one that a few trials gone astray do not decide."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    room = (high - low) * 0.08 or abs(low) * 0.05 or 1.0
    return low - room, high + room


def _class(trial: FrozenTrial) -> str:
    return "point student" if trial.state == TrialState.COMPLETE else "point label"


def _radius(count: int) -> float:
    return 4 if count <= 60 else 2.5


def _keys() -> Markup:
    return join(tag("span", "ended", class_="key student"), tag("span", "stopped", class_="key label"))


def _title(trial: FrozenTrial, mae: float) -> str:
    values = trial.user_attrs.get("values", trial.params)
    told = ", ".join(f"{n} {decimals(v) if isinstance(v, float) else v}" for n, v in values.items())
    steps = course(trial)
    how = f"stopped after epoch {max(steps)}" if trial.state == TrialState.PRUNED and steps else "ended"
    return f"Trial {trial.number}, {how}: MAE {mae:.4f} ({told})"

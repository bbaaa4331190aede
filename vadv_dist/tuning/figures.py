"""Plots of a search: its history, the course of each trial, each field alone, and all fields together."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from optuna.trial import FrozenTrial, TrialState

from vadv_dist.reporting.pictures import WIDE, Picture, Point, number, shortened
from vadv_dist.reporting.style import PALETTE
from vadv_dist.tuning.objectives import Objective
from vadv_dist.tuning.space import Entry, Value, values_text
from vadv_dist.tuning.study import costs_by_epoch

# Behind text that crosses lines.
_BACKGROUND = {"facecolor": PALETTE["ground"], "edgecolor": "none", "pad": 1, "alpha": 0.8}
KEYS = [("ended", "o1"), ("stopped", "label")]


def reached_cost(trial: FrozenTrial) -> float | None:
    """Cost of a trial: that of its best epoch if it ended, that of its last epoch if it was stopped."""
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    if trial.state == TrialState.PRUNED and (known := costs_by_epoch(trial)):
        return known[max(known)]
    return None


def history_picture(trials: Sequence[FrozenTrial], score: Objective) -> Picture | None:
    """Score by trial, and the best so far; None before the first trial has a score."""
    seen = _seen(trials)
    if not seen:
        return None
    picture = Picture("history", f"Validation {score.title} of each trial", WIDE)
    last = max(len(trials) - 1, 1)
    picture.frame((0, last), value_range([cost for _, cost in seen], score), x_label="trial", whole_x=True)
    picture.label = f"Validation {score.title} by trial."
    ended = [(trial.number, cost) for trial, cost in seen if trial.state == TrialState.COMPLETE]
    if ended:
        best = list(accumulate((cost for _, cost in ended), min))
        points = [(number, score.value(cost)) for (number, _), cost in zip(ended, best, strict=True)]
        picture.line([*points, (last, points[-1][1])], "ink", drawstyle="steps-post")
        picture.label += f" The best of those that ended is {score.cost_text(best[-1])}."
    _dots(picture, [(trial, (trial.number, score.value(cost)), cost) for trial, cost in seen], score)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    titles = [f"trial {t.number}: {t.user_attrs.get('failure', {}).get('kind', 'failed')}" for t in failed]
    top = picture.axes.get_ylim()[1]
    picture.dots([(trial.number, top) for trial in failed], "quiet", titles, radius=3, marker="x")
    picture.keys = KEYS
    return picture


def curves_picture(trials: Sequence[FrozenTrial], score: Objective) -> Picture | None:
    """Score by epoch of every trial; None before the first epoch."""
    known = [(trial, costs) for trial in trials if (costs := costs_by_epoch(trial))]
    if not known:
        return None
    picture = Picture("epochs", f"Validation {score.title} by epoch", WIDE)
    epochs = [epoch for _, costs in known for epoch in costs]
    values = value_range([cost for _, costs in known for cost in costs.values()], score)
    picture.frame((min(epochs), max(epochs)), values, x_label="epoch", whole_x=True)
    ends = []
    for trial, costs in sorted(known, key=lambda pair: pair[0].state == TrialState.COMPLETE):
        points = [(float(epoch), score.value(costs[epoch])) for epoch in sorted(costs)]
        stopped = trial.state == TrialState.PRUNED
        picture.line(points, "label" if stopped else "o1", **({"width": 1, "alpha": 0.55} if stopped else {}))
        ends.append((trial, points[-1], costs[max(costs)]))
    _dots(picture, ends, score, radius=3)
    stopped_count = sum(trial.state == TrialState.PRUNED for trial, _ in known)
    picture.label = f"Validation {score.title} by epoch of {len(known)} trials, {stopped_count} of them stopped."
    picture.keys = KEYS
    return picture


def slice_pictures(trials: Sequence[FrozenTrial], entries: Sequence[Entry], score: Objective) -> list[Picture]:
    """Score by the value of each field."""
    pictures = []
    for entry in entries:
        seen = [(trial, cost) for trial, cost in _seen(trials) if entry.field in trial.params]
        if not seen:
            continue
        picture = Picture(f"field-{entry.field}", entry.field)
        values = value_range([cost for _, cost in seen], score)
        picture.frame(_ends(entry), values, x_label=entry.field, log_x=entry.log)
        if places := _places(entry):
            picture.axes.set_xticks(*zip(*places, strict=True))
        if entry.kind == "categorical" and sum(len(words) for _, words in places) > 32:
            picture.axes.tick_params(axis="x", labelrotation=30)
            for words in picture.axes.get_xticklabels():
                words.set(ha="right", rotation_mode="anchor")
        if entry.zero:
            picture.axes.axvline(entry.low, color=PALETTE["grid"], linewidth=1)
        marks = [(trial, (_place(entry, trial.params[entry.field]), score.value(cost)), cost) for trial, cost in seen]
        _dots(picture, marks, score)
        picture.label = f"Validation {score.title} by {entry.field}."
        pictures.append(picture)
    return pictures


def parallel_picture(trials: Sequence[FrozenTrial], entries: Sequence[Entry], score: Objective) -> Picture | None:
    """A line per trial, from top to bottom across an axis per field and one for the score; better trials are darker."""
    seen = _seen(trials)
    if len(seen) < 2:
        return None
    low, high = value_range([cost for _, cost in seen], score)
    names = [*(entry.field for entry in entries), score.heading]
    picture = Picture("all-fields", "All fields together", (WIDE[0], 30 + 44 * len(names)))
    picture.rows(names, [""] * len(names), (0, 1))
    picture.axes.xaxis.set_visible(False)
    picture.axes.spines["bottom"].set_visible(False)
    for row in range(len(names)):
        picture.line([(0, row), (1, row)], "label", width=1)
    for row, entry in enumerate(entries):
        ticks = [(_share(entry, place), words) for place, words in _places(entry)]
        _tick_row(picture, row, ticks or [(0, number(entry.low)), (1, number(entry.high))])
    _tick_row(picture, len(entries), [(0, number(low)), (1, number(high))])
    ranked = sorted(seen, key=lambda pair: -pair[1])
    for rank, (trial, cost) in enumerate(ranked, 1):
        points = [
            (_share(entry, _place(entry, trial.params[entry.field])), float(row))
            for row, entry in enumerate(entries)
            if entry.field in trial.params
        ]
        points.append(((score.value(cost) - low) / (high - low), float(len(entries))))
        best = rank == len(ranked)
        look = {"width": 2.5} if best else {"alpha": 0.1 + 0.7 * rank / len(ranked)}
        picture.title(picture.line(points, "ink" if best else "o1", **look), [_title(trial, cost, score)])
    picture.label = f"Values of {len(seen)} trials on {len(entries)} axes, with their validation {score.title}."
    picture.note = f"bold: the best; fainter: a worse {score.title}"
    return picture


def importance_picture(shares: Mapping[str, float]) -> Picture:
    """Share of each field as a bar."""
    picture = Picture("importance", "Share of the variation", (WIDE[0], 30 + 36 * len(shares)))
    picture.rows(list(shares), [f"{share:.0%}" for share in shares.values()], (0, 100), x_label="%")
    for row, (name, share) in enumerate(shares.items()):
        bar = picture.axes.barh(row, 100 * share, 0.2, color=PALETTE["o1"])
        picture.title(bar[0], [f"{name}: {share:.1%}"])
    picture.label = "Share of the variation by field: " + ", ".join(f"{n} {share:.0%}" for n, share in shares.items())
    return picture


def value_range(costs: Sequence[float], score: Objective) -> Point:
    """Range of the values without the worst few, so that outliers do not decide it."""
    ordered = sorted(costs)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    room = (high - low) * 0.08 or abs(low) * 0.05 or 1.0
    ends = sorted((score.value(low - room), score.value(high + room)))
    return ends[0], ends[1]


def _seen(trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, float]]:
    return [(trial, cost) for trial in trials if (cost := reached_cost(trial)) is not None]


def _dots(
    picture: Picture,
    marks: Sequence[tuple[FrozenTrial, Point, float]],
    score: Objective,
    radius: float | None = None,
) -> None:
    """Draw trials, each with its point and its cost, as dots that show how they ended."""
    for _, role in KEYS:
        kept = [mark for mark in marks if (role == "o1") == (mark[0].state == TrialState.COMPLETE)]
        titles = [_title(trial, cost, score) for trial, _, cost in kept]
        size = radius or (4 if len(marks) <= 60 else 2.5)
        picture.dots([point for _, point, _ in kept], role, titles, radius=size)


def _tick_row(picture: Picture, row: int, ticks: Sequence[tuple[float, str]]) -> None:
    """Label one of several axes; labels are shortened to their share of the width."""
    for share, words in ticks:
        side = "left" if share < 0.1 else "right" if share > 0.9 else "center"
        most = max(50 // len(ticks) - 1, 4)
        picture.text(share, row, shortened(words, most), offset=(0, -4), ha=side, va="top", bbox=_BACKGROUND)


def _places(entry: Entry) -> list[tuple[float, str]]:
    """Positions and texts of an axis's labels; empty if its labels are plain numbers."""
    if entry.kind == "categorical":
        return [(float(place), shortened(str(choice), 16)) for place, choice in enumerate(entry.choices)]
    if not entry.zero:
        return []
    first, last = math.ceil(math.log10(entry.low)), math.floor(math.log10(entry.high))
    powers = [(10.0**power, number(10.0**power)) for power in range(first, last + 1)]
    return [(math.sqrt(entry.floor * entry.low), "0"), *powers]


def _ends(entry: Entry) -> Point:
    return (-0.5, len(entry.choices) - 0.5) if entry.kind == "categorical" else (entry.floor, entry.high)


def _share(entry: Entry, place: float) -> float:
    """Relative position between the ends of an axis."""
    low, high = _ends(entry)
    if entry.log:
        low, high, place = math.log(low), math.log(high), math.log(place)
    return (place - low) / (high - low) if high > low else 0.5


def _place(entry: Entry, parameter: Value) -> float:
    """Position of a parameter on its axis; everything that stands for zero has the same position."""
    if entry.kind == "categorical":
        return float(entry.choices.index(parameter))
    place = entry.parameter(entry.value(parameter))
    assert isinstance(place, int | float)
    return float(place)


def _title(trial: FrozenTrial, cost: float, score: Objective) -> str:
    values, epochs = trial.user_attrs.get("values", trial.params), costs_by_epoch(trial)
    how = f"stopped after epoch {max(epochs)}" if trial.state == TrialState.PRUNED and epochs else "ended"
    return f"Trial {trial.number}, {how}: {score.title} {score.cost_text(cost)} ({values_text(values)})"

"""Plots of a search, checked by the positions of what they draw."""

import math
from itertools import pairwise

import optuna
import pytest
from matplotlib.cbook import STEP_LOOKUP_MAP
from optuna.trial import FrozenTrial, TrialState, create_trial

from vadv_dist.evaluation.description import Metric
from vadv_dist.tuning.figures import (
    curves_picture,
    history_picture,
    importance_picture,
    parallel_picture,
    slice_pictures,
    value_range,
)
from vadv_dist.tuning.front import front_picture
from vadv_dist.tuning.objectives import BY_KEY, Objective
from vadv_dist.tuning.space import Entry

HIGHER = Objective("kappa", "Kappa", unit="")
LOWER = Objective("loss", "Loss", unit="label", lower_is_better=True, worst=None)
ENTRIES = (
    Entry("objective.weight", "float", 0.01, 100.0, log=True, zero=0.1),
    Entry("model.layers", "int", 2, 12),
    Entry("model.encoder", "categorical", choices=tuple(f"organisation/$name$ <{i}> {'long ' * 6}" for i in range(5))),
)


def trial(number: int, cost: float, state: TrialState = TrialState.COMPLETE, **extra: object) -> FrozenTrial:
    """A trial that reached a cost in two epochs."""
    weight, layers, encoder = ENTRIES
    zero = math.sqrt(weight.floor * weight.low)
    made = create_trial(
        state=state,
        values=None if state != TrialState.COMPLETE else [cost],
        params={
            weight.field: zero if number == 0 else 1.0,
            layers.field: 2 + number,
            encoder.field: encoder.choices[number % 5],
        },
        distributions={
            weight.field: optuna.distributions.FloatDistribution(weight.floor, weight.high, log=True),
            layers.field: optuna.distributions.IntDistribution(2, 12),
            encoder.field: optuna.distributions.CategoricalDistribution(encoder.choices),
        },
        intermediate_values={} if state == TrialState.FAIL else {1: cost + 0.125, 2: cost},
        user_attrs=extra,
    )
    made.number = number
    return made


TRIALS = [
    trial(0, -0.25),
    trial(1, -0.5),
    trial(2, -0.375, TrialState.PRUNED),
    trial(3, 0.0, TrialState.FAIL, failure={"kind": "<out of memory>"}),
]


def dots(picture: object) -> list[list[tuple[float, float]]]:
    return [[tuple(map(float, xy)) for xy in marks.get_offsets()] for marks in picture.axes.collections]


def stairs(line: object) -> list[tuple[float, float]]:
    """Corners of a line drawn in steps, without repeated points."""
    points = zip(*STEP_LOOKUP_MAP[line.get_drawstyle()](*line.get_data()), strict=True)
    return list(dict.fromkeys(tuple(map(float, point)) for point in points))


def test_history_shows_values_and_not_costs():
    picture = history_picture(TRIALS, HIGHER)
    ended, stopped, failed = dots(picture)
    assert ended == [(0, 0.25), (1, 0.5)]
    assert stopped == [(2, 0.375)]
    assert [x for x, _ in failed] == [3]
    # The best so far: 0.25, then 0.5 from trial 1 to the end.
    assert stairs(picture.axes.lines[0]) == [(0, 0.25), (1, 0.25), (1, 0.5), (3, 0.5)]
    html = picture.html()
    assert "&lt;out of memory&gt;" in html
    assert "The best of those that ended is 0.500" in html


def test_curves_of_all_trials_show_their_values():
    lines = curves_picture(TRIALS, LOWER).axes.lines
    courses = sorted([tuple(point) for point in line.get_xydata()] for line in lines)
    assert [(1, -0.125), (2, -0.25)] in courses
    assert len(courses) == 3


def test_zero_has_its_own_segment_and_label_on_a_log_axis():
    weight = slice_pictures(TRIALS, ENTRIES, HIGHER)[0]
    low = ENTRIES[0].low
    assert dots(weight)[0][0][0] < low
    weight.lay_out()
    labels = {label.get_text(): label.get_position()[0] for label in weight.axes.get_xticklabels()}
    assert labels["0"] < low
    assert labels["1"] == 1
    assert "100" in labels


def test_long_choices_are_shortened_and_rotated():
    picture = slice_pictures(TRIALS, ENTRIES, HIGHER)[2]
    picture.lay_out()
    labels = picture.axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["organisation/$n…"] * 5
    assert all(label.get_visible() and label.get_rotation() == 30 for label in labels)


def test_labels_of_the_parallel_picture_do_not_overlap():
    picture = parallel_picture(TRIALS, ENTRIES, HIGHER)
    picture.lay_out()
    boxes = [words.get_window_extent() for words in picture.axes.texts if words.get_text()]
    for first, second in pairwise(sorted(boxes, key=lambda box: (round(box.y0), box.x0))):
        assert not first.overlaps(second)
    best = [line for line in picture.axes.lines if line.get_linewidth() == 2.5]
    assert len(best) == 1
    # Trial 1: weight 1 on a log axis with a tenth for zero, 3 of 2 to 12 layers, the second choice of five.
    assert best[0].get_xdata()[:3] == pytest.approx([0.1 + 0.9 * 0.5, 0.1, (1 + 0.5) / 5])


def test_importance_is_a_bar_per_field():
    picture = importance_picture({"a <b>": 0.75, "c": 0.25})
    assert [bar.get_width() for bar in picture.axes.patches] == [75, 25]
    assert "a &lt;b&gt;: 75.0%" in picture.html()


@pytest.mark.parametrize(("score", "sign"), [(LOWER, 1), (HIGHER, -1)])
def test_edge_of_a_front_is_a_staircase_on_the_attainable_side(score, sign):
    other = BY_KEY["wall_time_s"]
    front = [create_trial(values=[sign * value, time]) for value, time in ((0.5, 10.0), (0.3, 20.0), (0.2, 40.0))]
    if sign < 0:
        front = [create_trial(values=[-value, time]) for value, time in ((0.2, 10.0), (0.3, 20.0), (0.5, 40.0))]
    for number, made in enumerate(front):
        made.number = number
    picture = front_picture(front, front, [score, other], 1)
    values = (0.5, 0.3, 0.2) if sign > 0 else (0.2, 0.3, 0.5)
    edge = stairs(picture.axes.lines[0])
    # Between two trials, a limit on the time admits only the faster one.
    assert edge == [(10, values[0]), (20, values[0]), (20, values[1]), (40, values[1]), (40, values[2])]


def test_outlier_does_not_decide_the_range():
    costs = [0.1 * i for i in range(1, 100)] + [1e9]
    low, high = value_range(costs, LOWER)
    assert low < 0.1
    assert high < 12
    assert value_range([-cost for cost in costs[:-1]], HIGHER)[1] > 9.9


def test_pictures_assume_no_metric():
    metric = Metric("zeta", "Zeta")
    assert metric.key not in BY_KEY
    for picture in (history_picture(TRIALS, HIGHER), curves_picture(TRIALS, HIGHER)):
        assert "Kappa" in picture.html()
        assert "MAE" not in picture.html()

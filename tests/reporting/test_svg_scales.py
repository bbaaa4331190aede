import math
import re

import pytest
from vadv_dist.reporting.svg import Scale, axes, linear_ticks, number, thin

from vadv_dist.reporting.figures import LabelRange, bar_shares


@pytest.mark.parametrize(
    ("low", "high", "count", "ticks"),
    [
        (0, 900, 5, [0, 200, 400, 600, 800]),
        (-3.3, 3.3, 7, [-3, -2, -1, 0, 1, 2, 3]),
        (0.61, 0.9, 4, [0.7, 0.8, 0.9]),
        (0, 8e-6, 4, [0, 2e-6, 4e-6, 6e-6, 8e-6]),
    ],
)
def test_ticks_are_round_and_inside(low, high, count, ticks):
    assert linear_ticks(low, high, count) == pytest.approx(ticks)


def test_a_log_scale_spreads_factors_evenly():
    scale = Scale(0.01, 10, start=100, end=0, log=True)
    assert [scale(x) for x in (0.01, 0.1, 1, 10)] == pytest.approx([100, 200 / 3, 100 / 3, 0])
    assert scale.ticks(4) == [0.01, 0.1, 1, 10]
    assert Scale(0.2, 0.9, 0, 1, log=True).ticks(4) == [0.2, 0.5]


def test_a_line_breaks_where_a_value_is_missing():
    area = axes(100, 100, (0, 3), (0, 1))
    path = re.search(r'd="([^"]*)"', area.line([(0, 0.5), (1, math.nan), (2, 0.5), (3, 1)], "x")).group(1)
    assert re.findall("[ML]", path) == ["M", "M", "L"]


def test_values_that_are_all_the_same_can_be_drawn():
    area = axes(100, 100, (0, 0), (0.7, 0.7))
    assert math.isfinite(area.x(0))
    assert math.isfinite(area.y(0.7))


def test_thinning_keeps_spikes_and_ends_in_order():
    points = [(float(i), 0.0) for i in range(5000)]
    points[1234] = (1234.0, 9.0)
    points[4321] = (4321.0, -9.0)
    kept = thin(points, 600)
    assert len(kept) <= 600
    assert {(1234.0, 9.0), (4321.0, -9.0)} <= set(kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_numbers_are_short():
    assert [number(x) for x in (-0.5, 20_000, 5e-5, 0.30000001)] == ["−0.5", "20k", "5e−5", "0.3"]


def test_bars_are_centred_on_the_steps_of_labels():
    labels = LabelRange(-3.0, 3.0)
    shares = bar_shares([-3.0, -0.2, 0.0, 0.0, 0.2, 3.0, 99.0, math.nan], labels)
    assert labels.bar == pytest.approx(0.2)
    assert sum(shares) == pytest.approx(1)
    middle = len(shares) // 2
    assert shares[middle - 1 : middle + 2] == pytest.approx([1 / 7, 2 / 7, 1 / 7])
    assert shares[-1] == pytest.approx(1 / 7)  # 99 is counted in the outermost bar


def test_every_step_of_mosis_labels_falls_into_a_bar_of_its_own():
    labels = LabelRange(-3.0, 3.0)
    shares = bar_shares([k / 5 for k in range(-15, 16)], labels)
    assert sorted(shares)[-31:] == pytest.approx([1 / 31] * 31)

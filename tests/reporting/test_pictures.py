import math
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import matplotlib
import numpy as np
import pytest

from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.reporting.curves import loss_pictures, optimizer_pictures, validation_pictures
from vadv_dist.reporting.figures import bar_edges, bar_shares, confusion_pictures, scatter_pictures
from vadv_dist.reporting.page import Page
from vadv_dist.reporting.pictures import Picture, number, thin
from vadv_dist.reporting.report import report_page
from vadv_dist.reporting.run_files import read_run
from vadv_dist.reporting.style import PALETTE
from vadv_dist.storage import location

HOSTILE = ("<b>bold</b>", "$x^2$ & $y$", "costs $5", "party 🎉", "a" * 80, '"quoted"')


def svg(picture: Picture) -> ET.Element:
    """A picture's SVG, read as XML."""
    return ET.fromstring("<svg" + str(picture.html()).partition("<svg")[2].partition("</figure>")[0])


def dots(picture: Picture) -> list[list[tuple[float, float]]]:
    return [[tuple(map(float, xy)) for xy in marks.get_offsets()] for marks in picture.axes.collections]


def visible_boxes(picture: Picture, axis: str) -> list[tuple[float, float]]:
    """Extents of the labels that a reader sees along one axis, in order."""
    picture.lay_out()
    labels = picture.axes.get_xticklabels() if axis == "x" else picture.axes.get_yticklabels()
    boxes = [label.get_window_extent() for label in labels if label.get_visible() and label.get_text()]
    return sorted((getattr(box, f"{axis}0"), getattr(box, f"{axis}1")) for box in boxes)


@pytest.mark.parametrize("epochs", [1, 100])
def test_every_epoch_is_drawn_at_its_value(make_run, epochs):
    run = read_run(make_run(epochs=epochs))
    picture = validation_pictures(run)[0]
    student = [(line.step, line.validation["student"]["mae"]) for line in run.epochs]
    assert [pytest.approx(point) for point in student] in dots(picture)
    term = run.task.terms[0]
    means = [(line.step - 10, line.train[term.name]) for line in run.epochs]
    bold = loss_pictures(run)[0].axes.lines[-1]
    assert list(bold.get_xydata()) == [pytest.approx(point) for point in means]


@pytest.mark.parametrize("epochs", [1, 100])
def test_tick_labels_do_not_overlap(make_run, epochs):
    run = read_run(make_run(epochs=epochs))
    pictures = report_page(run).pictures
    assert len(pictures) > 10
    for picture in pictures:
        for axis in "xy":
            boxes = visible_boxes(picture, axis)
            assert all(end <= start for (_, end), (start, _) in pairwise(boxes)), picture.name


@pytest.mark.parametrize("epochs", [1, 6])
def test_every_curve_shows_its_values_inside_the_axes(make_run, epochs):
    run = read_run(make_run(epochs=epochs, steps_per_epoch=5))  # one logged step each
    pictures = [*loss_pictures(run), *optimizer_pictures(run), *validation_pictures(run)]
    assert len(pictures) == 9
    for picture in pictures:
        low, high = picture.axes.get_ylim()
        drawn = [line.get_xydata() for line in picture.axes.lines if len(line.get_xydata()) > 1]
        values = [y for points in (*drawn, *dots(picture)) for _, y in points]
        assert values, picture.name
        assert low <= min(values) <= max(values) < high, picture.name


def test_all_seven_classes_are_labelled(make_run):
    picture = confusion_pictures(read_run(make_run()).evaluation)[0]
    assert len(visible_boxes(picture, "x")) == len(visible_boxes(picture, "y")) == 7


def test_labels_of_three_values_have_three_classes(make_run):
    evaluation = read_run(make_run(scale=LabelScale(-1, 1, 0), labels=[-1, 0, 1] * 4, clips=12)).evaluation
    picture = confusion_pictures(evaluation)[0]
    assert [tick.get_text() for tick in picture.axes.get_yticklabels()] == ["−1", "0", "1"]
    label, logit = evaluation.predictions.label, evaluation.predictions.values["student"]
    nearest = np.clip(np.sign(logit) * (np.abs(logit) > 0.5), -1, 1)
    assert f": {(nearest == label).sum()} of {len(label)} in the same class" in picture.label


def test_tick_labels_that_would_overlap_are_hidden():
    picture = Picture("p", "P")
    picture.frame((0, 20), (0, 1))
    picture.axes.set_xticks(range(21), ["a long name"] * 21)
    boxes = visible_boxes(picture, "x")
    assert 3 <= len(boxes) < 21
    assert all(end <= start for (_, end), (start, _) in pairwise(boxes))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_every_format(name):
    picture = Picture("p", name)
    picture.rows([name], [name], (0, 1), x_label=name)
    picture.axes.set_xticks([0.5], [name])
    picture.dots([(0.5, 0)], "o1", [name])
    picture.label, picture.keys = name, [(name, "o1")]
    root = svg(picture)
    assert root.get("aria-label") == name
    assert root.find(".//title").text == name
    words = [element.text for element in root.iter("text")]
    assert words.count(name) >= 3  # value, tick and axis; the row's name may be shortened
    assert {element.tag for element in root.iter()} <= {"svg", "g", "defs", "path", "use", "text", "title"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture.file("png").startswith(b"\x89PNG")
        assert picture.file("pdf").startswith(b"%PDF")


def test_the_svg_takes_colours_and_font_from_the_page_and_refers_to_nothing_outside(make_run):
    for picture in scatter_pictures(read_run(make_run()).evaluation):
        html = str(picture.html())
        assert not [colour for colour in PALETTE.values() if colour in html]
        assert "font-family" not in html
        assert "url(" not in html
        root = svg(picture)
        ids = {element.get("id") for element in root.iter()} - {None}
        assert {element.get("href") for element in root.iter("use")} == {f"#{name}" for name in ids}


def test_hover_title_of_a_clip_contains_its_words(make_run):
    run = read_run(make_run(clips=3, texts=["one <i>", "two $2$", "three"]))
    titles = [title.text for title in svg(scatter_pictures(run.evaluation)[0]).iter("title")]
    assert [title.split("\n")[1] for title in titles] == ["one <i>", "two $2$", "three"]


def test_each_mark_needs_a_title():
    picture = Picture("p", "P")
    picture.frame((0, 1), (0, 1))
    picture.dots([(0, 0), (1, 1)], "o1", ["only one"])
    with pytest.raises(ValueError, match="2 marks and 1 titles"):
        picture.html()


def test_matplotlib_settings_of_the_user_have_no_effect_and_are_kept():
    def drawn() -> str:
        picture = Picture("p", "P")
        picture.frame((0, 1), (0, 1))
        picture.line([(0, 0), (1, 1)], "o2")
        return picture.html()

    expected = drawn()
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "axes.facecolor": "red", "xtick.top": True}):
        before = dict(matplotlib.rcParams)
        assert drawn() == expected
        assert dict(matplotlib.rcParams) == before


def test_a_line_is_interrupted_at_missing_values_and_stays_inside():
    picture = Picture("p", "P")
    picture.frame((0, 3), (0.1, 10), log_y=True)
    picture.line([(0, 0.5), (1, math.nan), (2, -1), (3, 99)], "o1")
    assert picture.axes.lines[0].get_ydata() == pytest.approx([0.5, math.nan, math.nan, 10], nan_ok=True)


def test_equal_values_can_be_drawn():
    picture = Picture("p", "P")
    picture.frame((0, 0), (0.7, 0.7))
    picture.dots([(0, 0.7)], "o1", ["here"])
    assert svg(picture).find(".//title").text == "here"


def test_pictures_of_a_page_in_an_object_store_are_written_next_to_it(s3):
    picture = Picture("a/../b $", "P")
    picture.frame((0, 1), (0, 1))
    folder = location(f"{s3}/pictures")
    Page("<p>", [picture]).write(folder / "report.html")
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["a-..-b-.pdf", "a-..-b-.png"]
    assert (folder / "report.html").read_text() == "<p>"


def test_nothing_is_written_if_a_picture_cannot_be_drawn(tmp_path: Path):
    def fail(kind: str) -> bytes:
        raise ValueError(kind)

    good = Picture("good", "P")
    good.frame((0, 1), (0, 1))
    with pytest.raises(ValueError, match="png"):
        Page("<p>", [good, SimpleNamespace(name="bad", file=fail)]).write(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


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
    edges = bar_edges(LabelScale())
    shares = bar_shares(np.array([-3.0, -0.2, 0.0, 0.0, 0.2, 3.0, 99.0, math.nan]), edges)
    assert np.diff(edges) == pytest.approx(0.2)
    assert sum(shares) == pytest.approx(1)
    middle = len(shares) // 2
    assert shares[middle - 1 : middle + 2] == pytest.approx([1 / 7, 2 / 7, 1 / 7])
    assert shares[-1] == pytest.approx(1 / 7)  # 99 is counted in the outermost bar


def test_each_step_of_mosis_labels_has_its_own_bar():
    shares = bar_shares(np.arange(-15, 16) / 5, bar_edges(LabelScale()))
    assert sorted(shares)[-31:] == pytest.approx([1 / 31] * 31)

"""The error analysis of a report: groups, calibration, what the teacher saw better, and frames."""

import re

import numpy as np
import pandas as pd
import pytest
from test_report_page import Page, page_of

from vadv_dist.evaluation import classification
from vadv_dist.evaluation.description import Output, TaskDescription
from vadv_dist.reporting.error_sections import error_sections
from vadv_dist.reporting.markup import join, tag
from vadv_dist.reporting.report import report_page
from vadv_dist.reporting.run_files import Predictions, Scored, read_run
from vadv_dist.runs.records import Evaluation

CLASSES = ("bad", "fair", "good")


def section(page, anchor):
    """Text of one section, without tags."""
    part = page.source.split(f'id="{anchor}"')[1].split("</section>")[0]
    return " ".join(re.sub("<[^>]*>", " ", part).split())


def table_of(run):
    return pd.read_parquet(run / "predictions-test.parquet")


def scored_classes(probability, label, teacher=None):
    """An evaluation of a student of three classes, and of a teacher, if it has predictions."""
    outputs = [Output("student", "Student", "p", "student", "probabilities")]
    values = {"student": np.asarray(probability, np.float64)}
    if teacher is not None:
        outputs.append(Output("video", "Video logit", "v", "video logit", "probabilities"))
        values["video"] = np.asarray(teacher, np.float64)
    task = TaskDescription("sentiment", (), tuple(outputs), classification.METRICS, "accuracy", CLASSES)
    rows = len(label)
    document = Evaluation(
        run="made", split="test", step=1, rows=rows, dropped=0, data=[], texts_cut={}, task=task, labels=None,
        absent={}, metrics={name: {} for name in values}, remarks=[], sources={},
    )  # fmt: skip
    names = [f"clip{row:03d}" for row in range(rows)]
    videos = [f"video{row % 4}" for row in range(rows)]
    texts = ["so" + " good" * (row % 9) for row in range(rows)]
    return Scored(document, Predictions(names, ["made"] * rows, texts, videos, np.asarray(label, np.float64), values))


def page_of_sections(sections):
    return Page(join(*(tag("section", tag("h2", s.title), s.note, s.content, id=s.anchor) for s in sections)))


def test_scores_by_group_are_the_means_of_pandas(make_run):
    run = make_run(clips=120)
    table = table_of(run)
    table["error"] = (table["text_logit"] - table["label"]).abs()
    page = page_of(run)
    labels = [svg["aria-label"] for svg in page.all("svg")]
    by_label = next(label for label in labels if label.startswith("MAE ↓ by label"))
    for low, found in table.groupby(np.minimum(np.floor(table["label"] + 1e-6), 2))["error"]:
        assert f"{low:.0f} to {low + 1:.0f} {found.mean():.3f}".replace("-", "−") in by_label
    by_words = next(label for label in labels if label.startswith("MAE ↓ by number of words"))
    words = table["text"].str.split().str.len()
    shortest = table["error"][words <= int(re.search(r"to (\d+) words", by_words)[1])]
    assert f" {shortest.mean():.3f} (" in by_words
    worst = table.groupby("video_id")["error"].mean().sort_values(ascending=False)
    shown = section(page, "errors")
    assert [shown.index(name) for name in worst.index] == sorted(shown.index(name) for name in worst.index)
    assert f"{worst.index[0]} 20 {worst.iloc[0]:.3f}" in shown
    assert "All clips have the same source: synth." in shown


def test_calibration_lists_bins_with_their_clips(make_run):
    run = make_run(clips=60)
    table = table_of(run).sort_values("text_logit")
    shown = section(page_of(run), "calibration")
    for start in range(0, 60, 10):
        mine = table.iloc[start : start + 10]
        predicted, label = (f"{mine[name].mean():.3f}".replace("-", "−") for name in ("text_logit", "label"))
        assert f"{predicted} 10 {label}" in shown


def test_what_only_the_teacher_has_right_is_counted_in_both_directions(make_run):
    run = make_run(clips=80)
    table = table_of(run)
    student, video = ((table[name] - table["label"]).abs() for name in ("text_logit", "video_logit"))
    own, theirs = student <= 0.5, video <= 0.5
    counts = [80, (own & theirs).sum(), (theirs & ~own).sum(), (own & ~theirs).sum(), (~own & ~theirs).sum()]
    shown = section(page_of(run), "teacher")
    assert "Right: within 0.5 of the label" in shown
    assert f"Video logit {' '.join(map(str, counts))} {theirs.mean() - own.mean():+.1%}".replace("-", "−") in shown
    ahead = (student - video)[theirs & ~own].mean()
    where = f"On the {counts[2]} clips that the video logit has right and the student wrong"
    assert f"{where}, its error is {ahead:.3f} smaller." in shown
    best = table["clip_id"][(video - student)[theirs & ~own].idxmin()]
    listed = [name for name in re.findall(r"video\d\d_\d+", shown) if name in set(table["clip_id"])]
    assert listed[0] == best
    assert len(listed) == 5


def test_a_teacher_without_predictions_is_said(make_run):
    run = make_run(clips=40)
    table = table_of(run)
    for name in ("video_logit", "prompt_logit"):
        table[name] = np.full(40, np.nan, np.float32)
    found = read_run(run).evaluation
    values = found.predictions.values | dict.fromkeys(("video", "prompt"), np.full(40, np.nan))
    scored = Scored(found.document, Predictions(**(vars(found.predictions) | {"values": values})))
    page = page_of_sections(error_sections(scored, None))
    assert section(page, "teacher").endswith("The teacher has no prediction of these clips.")
    assert "nan" not in page.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"labels": [1.0] * 40}, "All clips have the same label: 1."),
        ({"clips": 30, "texts": [""] * 30}, "All clips have the same number of words: 0 words."),
        ({"clips": 19}, "There are fewer than 20 clips"),
        ({"clips": 25, "texts": ["one"] * 25}, "All clips have the same number of words: 1 word."),
    ],
)
def test_groups_that_do_not_exist_are_said_and_not_drawn(make_run, arguments, said):
    page = page_of(make_run(**arguments))
    assert said in page.text
    assert "nan" not in page.text
    assert "inf" not in re.sub("information", "", page.text)


def test_videos_of_few_clips_have_no_scores(make_run):
    run = make_run(clips=40)
    found = read_run(run).evaluation
    videos = [f"v{row // 2}" for row in range(40)]
    scored = Scored(found.document, Predictions(**(vars(found.predictions) | {"video_id": videos})))
    shown = section(page_of_sections(error_sections(scored, None)), "errors")
    assert "No scores by video: none of 20 has 10 clips." in shown


def test_frames_are_shown_with_the_clips_that_have_them(make_run):
    run = make_run(clips=30)
    asked = {}

    def strips(data, ids):
        asked["data"], asked["ids"] = data, list(ids)
        return {ids[0]: b"\xff\xd8jpeg", ids[1]: "the file is gone"}

    record = read_run(run)
    source = report_page(record, strips=strips).html
    errors = (table_of(run)["text_logit"] - table_of(run)["label"]).abs()
    worst = table_of(run)["clip_id"][errors.sort_values(ascending=False).index[:10]]
    assert asked["ids"][:10] == list(worst)
    assert len(asked["ids"]) == len(set(asked["ids"]))
    assert asked["data"] == record.evaluation.document.data
    assert f'alt="Frames of {worst.iloc[0]}"' in source
    assert 'src="data:image/jpeg;base64,/9hqcGVn"' in source
    assert "no frames: the file is gone" in source


def test_classes_have_accuracy_by_group_and_calibration():
    rng = np.random.default_rng(0)
    probability, label = rng.dirichlet(np.ones(3), 200), rng.integers(0, 3, 200)
    scored = scored_classes(probability, label, rng.dirichlet(np.ones(3), 200))
    sections = error_sections(scored, None)
    page = page_of_sections(sections)
    assert page.headings == ["Errors by group", "Calibration", "What the teacher saw better", "Worst predictions"]
    right = probability.argmax(axis=1) == label
    words = np.arange(200) % 9 + 1
    by_words = next(svg["aria-label"] for svg in page.all("svg") if "number of words" in svg["aria-label"])
    assert f"1 to 2 words {right[words <= 2].mean():.1%}" in by_words
    assert "expected calibration error" in page.text
    assert "by label" not in page.text  # precision and recall by class are in a section of their own
    own = probability[np.arange(200), label]
    assert section(page, "worst").index(f"clip{own.argsort()[0]:03d}") < section(page, "worst").index(
        f"clip{own.argsort()[1]:03d}"
    )
    assert "Right: the class of the label has the highest probability." in section(page, "teacher")


@pytest.mark.parametrize(("clips", "intervals"), [(9, 0), (10, 2)])
def test_few_clips_have_no_intervals(clips, intervals):
    good, bad = [[0.8, 0.1, 0.1]] * clips, [[0.1, 0.8, 0.1]] * clips
    page = page_of_sections(error_sections(scored_classes(bad, [0] * clips, good), None))
    assert f"Video logit {clips} 0 {clips} 0 0 +100.0%" in section(page, "teacher")
    assert section(page, "teacher").count("…") == intervals


def test_one_clip_of_classes_can_be_shown():
    page = page_of_sections(error_sections(scored_classes([[0.2, 0.3, 0.5]], [2], [[np.nan] * 3]), None))
    assert "The teacher has no prediction of these clips." in page.text
    assert "50.0%" in section(page, "worst")
    assert "nan" not in page.text

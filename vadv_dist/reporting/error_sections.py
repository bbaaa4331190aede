"""The sections on a text student's errors: where they are, calibration, what the teacher saw better, worst clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vadv_dist.evaluation.description import Output
from vadv_dist.evaluation.discordance import Discordance, discordance
from vadv_dist.evaluation.error_groups import (
    MIN_CLIPS,
    Binned,
    GroupScore,
    group_scores,
    label_bins,
    length_bins,
    named_groups,
)
from vadv_dist.evaluation.paired import Interval
from vadv_dist.evaluation.reliability import CLASS_BINS, Reliability, class_reliability, value_reliability
from vadv_dist.reporting.clip_tables import Strips, clip_table, worst_rows
from vadv_dist.reporting.error_figures import group_picture, reliability_picture, signed, with_interval
from vadv_dist.reporting.markup import Markup, join, tag
from vadv_dist.reporting.page import Section, grid
from vadv_dist.reporting.run_files import Scored
from vadv_dist.reporting.style import role_of
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING, clips, score

_MOST_GROUPS = 12  # of a picture
_TABLE_VIDEOS = 10
_TEACHER_CLIPS = 5
_OVER_CLIPS = "Intervals (95 %) are over clips, as if those of one video were independent."


@dataclass(frozen=True)
class _View:
    """A teacher's output compared with the student.

    Attributes:
        output: the teacher's.
        found: the comparison; None if no clip has a prediction of both.
        rows: clips that only the teacher has right, those first on which it is furthest ahead.
    """

    output: Output
    found: Discordance | None
    rows: list[int]


def error_sections(evaluation: Scored, strips: Strips | None) -> list[Section]:
    """Errors by group, calibration, what the teacher saw better if there is one, and the worst clips.

    Args:
        evaluation: of a student that reads words.
        strips: finds frames of clips; None shows none.
    """
    worst, views = worst_rows(evaluation), [_view(evaluation, output) for output in evaluation.outputs[1:]]
    ahead = [row for view in _best_first(views)[:1] for row in view.rows]
    ids = [evaluation.predictions.clip_id[row] for row in dict.fromkeys((*worst, *ahead))]
    frames = {} if strips is None else strips(evaluation.document.data, ids)
    shown, title = clips(len(worst), evaluation.split), "Worst predictions"
    if evaluation.classifies:
        note = f"The {shown} whose class the student gives the lowest probability."
    else:
        note = f"The {shown} with the largest errors of the student."
    sections = [_groups(evaluation), _calibration(evaluation)]
    if views:
        sections.append(_teacher(evaluation, views, frames))
    return [*sections, Section("worst", title, note, clip_table(title, evaluation, worst, frames))]


def _groups(evaluation: Scored) -> Section:
    """Scores by number of words, label and source, and the videos with the worst."""
    metric, overall = evaluation.task.score_metric, float(evaluation.clip_scores.mean())
    predictions, scale = evaluation.predictions, evaluation.document.labels
    partitions = [
        ("words", "number of words", length_bins([len(text.split()) for text in predictions.text])),
        ("source", "source", named_groups(predictions.source)),
    ]
    if scale is not None:  # by class, there are precision and recall
        partitions.insert(1, ("label", "label", label_bins(predictions.label, scale.low, scale.high)))
    pictures, alone = [], []
    for name, by, groups in partitions:
        if len(groups.names) == 1:
            alone.append(f"All clips have the same {by}: {groups.names[0]}.")
            continue
        found = _scores(evaluation, groups)
        shown = sorted(sorted(found, key=lambda group: -group.clips)[:_MOST_GROUPS], key=found.index)
        pictures.append(group_picture(name, by, shown, metric, overall))
        if len(shown) < len(found):
            pictures[-1].note = f"the {_MOST_GROUPS} largest of {len(found):,}"
    note = f"{metric.title} of the student; strokes mark that of all clips. {_OVER_CLIPS}"
    note += f" Fewer than {MIN_CLIPS} clips have none."
    listed = tag("ul", *(tag("li", line) for line in alone), class_="notes") if alone else ""
    return Section(
        "errors", "Errors by group", note, join(grid(pictures, "wide"), listed, _videos(evaluation)), pictures
    )


def _scores(evaluation: Scored, groups: Binned) -> list[GroupScore]:
    if evaluation.classifies:
        return group_scores(evaluation.is_right(evaluation.task.student), groups)
    bias = evaluation.predictions.values[evaluation.task.student.name] - evaluation.predictions.label
    return group_scores(evaluation.clip_scores, groups, bias_R=bias)


def _videos(evaluation: Scored) -> Markup:
    """The videos with the worst scores, of those with enough clips for an interval."""
    metric, videos = evaluation.task.score_metric, named_groups(evaluation.predictions.video_id)
    if len(videos.names) < 2:
        return tag("p", "No scores by video: the clips are of one video, or their videos are unknown.", class_="about")
    enough = [found for found in _scores(evaluation, videos) if found.clips >= MIN_CLIPS]
    if not enough:
        return tag("p", f"No scores by video: none of {len(videos.names):,} has {MIN_CLIPS} clips.", class_="about")
    enough.sort(key=lambda found: (metric.cost(-found.mean), found.name))
    rows: list[tuple[str | None, list[str]]] = []
    for found in enough[:_TABLE_VIDEOS]:
        cells = [found.name, f"{found.clips:,}", with_interval(found.mean, found.interval, metric)]
        rows.append((None, cells if found.bias is None else [*cells, signed(found.bias)]))
    off = [] if evaluation.classifies else ["Prediction − label"]
    about = f"Videos with the worst scores, of {len(enough):,} with at least {MIN_CLIPS} clips."
    table = plain_table("Videos", ("Video", "Clips", metric.title, *off), rows)
    return join(tag("p", about, class_="about"), table)


def _calibration(evaluation: Scored) -> Section:
    """Predictions compared with what was observed, by bin."""
    student = evaluation.task.student
    values, label = evaluation.predictions.values[student.name], evaluation.predictions.label
    found: Reliability | None
    if evaluation.classifies:
        found, names = class_reliability(values, label), ("probability of the predicted class", "share that is right")
        note = "Clips by the probability of their predicted class. On the dashed line, 70 % is right for 70 % of clips."
    else:
        found, names = value_reliability(values, label), ("prediction", "mean label")
        note = "Clips in bins of about equal size by prediction. On the dashed line, the mean label is the prediction."
    if found is None:
        why = "There are fewer than 20 clips, or most have the same prediction, so there are no bins to compare."
        return Section("calibration", "Calibration", "", tag("p", why, class_="about"))
    percent = evaluation.classifies
    picture = reliability_picture(found, *names, percent=percent)
    gap = score(found.gap, percent=percent)
    picture.note = f"expected calibration error {gap} ({CLASS_BINS} bins)" if percent else f"mean gap {gap}"
    picture.label = f"{names[1].capitalize()} by {names[0]}: {picture.note}."
    rows = [
        (
            None,
            [
                score(each.predicted, percent=percent),
                f"{each.clips:,}",
                score(each.observed.mean, percent=percent),
                " … ".join(score(end, percent=percent) for end in each.observed[1:]),
            ],
        )
        for each in found.bins
    ]
    columns = (f"Mean {names[0]}", "Clips", names[1].capitalize(), "95 % interval")
    content = tag("div", picture.html(), plain_table("Calibration", columns, rows), class_="grid-of wide")
    return Section("calibration", "Calibration", note, content, [picture])


def _view(evaluation: Scored, output: Output) -> _View:
    student = evaluation.task.student
    errors, right = evaluation.errors(student), evaluation.is_right(student)
    theirs, theirs_right = evaluation.errors(output), evaluation.is_right(output)
    found = discordance(errors, theirs, right, theirs_right)
    rows = np.flatnonzero(theirs_right & ~right & np.isfinite(theirs)).tolist()
    names = evaluation.predictions.clip_id
    rows.sort(key=lambda row: (theirs[row] - errors[row], names[row]))
    return _View(output, found, rows[:_TEACHER_CLIPS])


def _best_first(views: Sequence[_View]) -> list[_View]:
    """Those with a comparison; first the output with the lowest error compared with the student's."""
    return sorted(
        (view for view in views if view.found), key=lambda view: -view.found.error.mean if view.found else 0.0
    )


def _teacher(evaluation: Scored, views: Sequence[_View], frames: Mapping[str, bytes | str]) -> Section:
    """Clips that only one of teacher and student has right."""
    title, best = "What the teacher saw better", _best_first(views)
    if not best:
        return Section("teacher", title, "", tag("p", "The teacher has no prediction of these clips.", class_="about"))
    percent = evaluation.classifies
    if percent:
        note = "Right: the class of the label has the highest probability. The error is 1 minus that probability."
    else:
        note = (
            f"Right: within {evaluation.tolerance:g} of the label, a twelfth of its range. The error is the distance."
        )
    rows: list[tuple[str | None, list[str]]] = []
    for view in views:
        key = tag("span", view.output.title, class_=f"key {role_of(evaluation.task, view.output)}")
        rows.append((None, [key, *_cells(view.found)]))
    columns = (
        *("Teacher’s", "Clips", "Both right", "Only teacher", "Only student", "Neither"),
        *("Right: teacher − student", "Error: student − teacher"),
    )
    parts = [plain_table("Teacher and student", columns, rows), _leads(best)]
    first = best[0]
    if first.rows:
        about = (
            f"Clips that only the {first.output.title.lower()} has right, those first on which it is furthest ahead."
        )
        parts += [tag("p", about, class_="about"), clip_table(title, evaluation, first.rows, frames)]
    return Section("teacher", title, f"{note} {_OVER_CLIPS}", join(*parts))


def _cells(found: Discordance | None) -> list[str]:
    if found is None:
        return ["0", *[MISSING] * 6]
    counts = (found.clips, found.both, found.only_teacher, found.only_student, found.neither)
    right, error = _difference(found, found.right, percent=True), _difference(found, found.error, percent=False)
    return [*(f"{count:,}" for count in counts), right, error]


def _difference(found: Discordance, interval: Interval, *, percent: bool) -> str:
    unit, scale, digits = ("%", 100, 1) if percent else ("", 1, 2)
    mean, low, high = (f"{scale * value:+.{digits}f}".replace("-", "−") for value in interval)
    return f"{mean}{unit} ({low} … {high})" if found.clips >= MIN_CLIPS else f"{mean}{unit}"


def _leads(views: Sequence[_View]) -> Markup:
    """By how much each is ahead where only one is right."""
    lines = []
    for view in views:
        found, name = view.found, view.output.title.lower()
        if found is None:
            continue
        for who, other, count, lead in (
            (name, "student", found.only_teacher, found.teacher_ahead),
            ("student", name, found.only_student, found.student_ahead),
        ):
            if lead is None:
                lines.append(f"On no clip is the {who} right and the {other} wrong.")
            else:
                where = f"On the {clips(count)} that the {who} has right and the {other} wrong"
                lines.append(f"{where}, its error is {lead:.3f} smaller.")
    return tag("ul", *(tag("li", line) for line in lines), class_="notes")

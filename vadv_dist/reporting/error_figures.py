"""Plots of an error analysis: scores by group of clips, and predictions against what was observed."""

from collections.abc import Sequence

from vadv_dist.evaluation.description import Metric
from vadv_dist.evaluation.error_groups import GroupScore
from vadv_dist.evaluation.paired import Interval
from vadv_dist.evaluation.reliability import Reliability
from vadv_dist.reporting.pictures import WIDE, Picture
from vadv_dist.reporting.words import clips, score


def group_picture(name: str, by: str, groups: Sequence[GroupScore], metric: Metric, overall: float) -> Picture:
    """The student's score by group with intervals over clips; a stroke marks that of all clips.

    Args:
        name: name of the picture.
        by: what the groups are, such as `number of words`.
        groups: scores of the groups, in order.
        metric: the metric.
        overall: its value on all clips.
    """
    picture = Picture(f"errors-by-{name}", f"{metric.heading} by {by}", (WIDE[0], 34 + 42 * len(groups)))
    texts = [with_interval(group.mean, group.interval, metric) for group in groups]
    ends = [overall, *(group.mean for group in groups)]
    ends += [end for group in groups if group.interval for end in group.interval[1:]]
    room = max((max(ends) - min(ends)) * 0.1, 0.02)
    counted = [f"{text} · {clips(group.clips)}" for text, group in zip(texts, groups, strict=True)]
    picture.rows([group.name for group in groups], counted, (min(ends) - room, max(ends) + room))
    for at, (group, text) in enumerate(zip(groups, counted, strict=True)):
        if group.interval:
            picture.line([(group.interval.low, at), (group.interval.high, at)], "o1", width=2, alpha=0.6)
        bias = "" if group.bias is None else f"\npredictions are off by {signed(group.bias)} on average"
        picture.line([(overall, at - 0.16), (overall, at + 0.22)], "ink", width=1)
        picture.dots([(group.mean, at)], "o1", [f"{group.name}: {text}{bias}"], radius=5)
    said = (f"{group.name} {text}" for group, text in zip(groups, texts, strict=True))
    picture.label = f"{metric.heading} by {by}: {', '.join(said)}."
    return picture


def reliability_picture(found: Reliability, predicted: str, observed: str, *, percent: bool) -> Picture:
    """What was observed by bin of predictions, with intervals; on the dashed line, predictions hold.

    Args:
        found: the bins.
        predicted, observed: what both are, as phrases.
        percent: whether both are shares.
    """
    picture = Picture("calibration", "Student", WIDE)
    ends = [end for each in found.bins for end in (each.predicted, each.observed.low, each.observed.high)]
    low, high = (0.0, 1.0) if percent else (min(ends), max(ends))
    picture.frame((low, high), (low, high), x_label=predicted)
    picture.line([(low, low), (high, high)], "ink", width=1, dashed=(0, (4, 3)))
    titles = []
    for each in found.bins:
        mean, one, other = (score(value, percent=percent) for value in each.observed)
        titles.append(
            f"{clips(each.clips)}, {predicted} {score(each.predicted, percent=percent)}: {observed} {mean} "
            f"({one} … {other})"
        )
        picture.line([(each.predicted, end) for end in each.observed[1:]], "o1", width=2, alpha=0.6)
    points = [(each.predicted, each.observed.mean) for each in found.bins]
    picture.line(points, "o1", width=1)
    picture.dots(points, "o1", titles, radius=4)
    return picture


def with_interval(mean: float, interval: Interval | None, metric: Metric) -> str:
    """A score and its interval, if it has one."""
    text = score(mean, percent=metric.percent)
    if interval is None:
        return text
    low, high = (score(end, percent=metric.percent) for end in interval[1:])
    return f"{text} ({low} … {high})"


def signed(value: float) -> str:
    """A difference of labels with its sign."""
    return f"{value:+.3f}".replace("-", "−")

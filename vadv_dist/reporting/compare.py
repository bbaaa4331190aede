"""`vadv compare`: what distinguishes several runs, and how their students score on the same clips."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vadv_dist.errors import UserError
from vadv_dist.evaluation.description import Metric, TaskDescription
from vadv_dist.evaluation.paired import Interval
from vadv_dist.evaluation.seeds_and_clips import seeds_and_clips
from vadv_dist.reporting.clip_metrics import ClipMetrics
from vadv_dist.reporting.comparison import configurations
from vadv_dist.reporting.curves import validation_points
from vadv_dist.reporting.markup import join, tag
from vadv_dist.reporting.page import Page, Section, document, grid
from vadv_dist.reporting.pictures import WIDE, Picture, with_room
from vadv_dist.reporting.run_files import RUN_FILES, RunRecord, evaluate_command, read_evaluation, read_run
from vadv_dist.reporting.tables import plain_table
from vadv_dist.reporting.words import MISSING, SPLITS, clips, score
from vadv_dist.runs.records import finite
from vadv_dist.storage import Location, local_copy, location

if TYPE_CHECKING:
    from rich.table import Table

_ROLES = ("o1", "o2", "o3", "other", "quiet", "label")
_EPOCHS = 8  # rows of the curves in a terminal


@dataclass(frozen=True)
class ComparedRun:
    """A run, its evaluation, and its differences from the first run.

    Attributes:
        record: the run's files.
        clips: its evaluation.
        differences: by metric, this run minus the first one, with the interval over clips; None where clips cannot be
            resampled. Empty for the first run.
    """

    record: RunRecord
    clips: ClipMetrics
    differences: dict[str, Interval | None]

    @property
    def name(self) -> str:
        """Its name, or its folder if another run has the same name."""
        return self.record.name

    def value(self, metric: Metric) -> float | None:
        """One metric of the student."""
        return self.clips.scored.document.metrics[self.clips.scored.task.student.name].get(metric.key)


@dataclass(frozen=True)
class RunsComparison:
    """Several runs on one split; the first is the reference.

    Attributes:
        split: the split.
        runs: at least two.
        config: configuration fields in which not all agree, with the value of each run.
    """

    split: str
    runs: list[ComparedRun]
    config: dict[str, list[Any]]

    @property
    def task(self) -> TaskDescription:
        """The runs' task."""
        return self.runs[0].clips.scored.task

    @cached_property
    def metrics(self) -> list[Metric]:
        """Metrics that a run has."""
        return [m for m in self.task.metrics if any(run.value(m) is not None for run in self.runs)]

    def to_json(self) -> dict[str, Any]:
        """As plain containers."""
        document: dict[str, Any] = finite(
            {
                "split": self.split,
                "clips": len(self.runs[0].clips.names),
                "reference": self.runs[0].name,
                "config": self.config,
                "runs": [
                    {
                        "name": run.name,
                        "folder": run.record.uri,
                        "metrics": {metric.key: run.value(metric) for metric in self.metrics},
                        "differences": {
                            key: None if found is None else found._asdict() for key, found in run.differences.items()
                        },
                        "curve": [
                            {"step": step, self.task.score: value}
                            for step, value in validation_points(run.record, self.task.student)
                        ],
                    }
                    for run in self.runs
                ],
            }
        )
        return document


def compare_many(folders: Sequence[str | Location], split: str | None = None) -> RunsComparison:
    """Compare runs with the first of them.

    Args:
        folders: at least two runs.
        split: the split to compare on; None is the test split if all were evaluated on it, or else the validation
            split.
    Raises:
        UserError: fewer than two runs; a folder that is not a run; a run that was not evaluated; runs with other
            metrics or other clips.
    """
    places = [location(folder) for folder in folders]
    if len(places) < 2:
        raise UserError(f"compare needs at least two runs, but {len(places)} was given. Give several run folders.")
    if len(set(map(str, places))) < len(places):
        raise UserError("compare was given the same run twice. Give different run folders.")
    with contextlib.ExitStack() as copies:
        records = [read_run(copies.enter_context(local_copy(place, RUN_FILES)), str(place)) for place in places]
        names = [record.name for record in records]
        records = [dataclasses.replace(r, name=r.uri) if names.count(r.name) > 1 else r for r in records]
        first = records[0]
        for record in records[1:]:
            if record.task.score != first.task.score or record.task.kind != first.task.kind:
                raise UserError(
                    f"{first.uri} is a run of {first.task.kind}, scored by {first.task.score_metric.title}, but "
                    f"{record.uri} one of {record.task.kind}, scored by {record.task.score_metric.title}. Compare runs "
                    "of the same task."
                )
        chosen = split or _common_split(records)
        found = [_evaluated(record, chosen) for record in records]
    reference = found[0]
    for record, other in zip(records, found, strict=True):
        if not reference.has_clips_of(other):
            raise UserError(
                f"{first.uri} and {record.uri} were not evaluated on the same clips of the {chosen} split with the "
                "same labels. Compare runs of the same data set."
            )
    runs = [
        ComparedRun(record, each, {} if each is reference else _differences(each, reference))
        for record, each in zip(records, found, strict=True)
    ]
    return RunsComparison(chosen, runs, configurations(records))


def _common_split(records: Sequence[RunRecord]) -> str:
    for split in ("test", "valid"):
        if all(read_evaluation(record.path, split, record.trained_on) is not None for record in records):
            return split
    return "test"


def _evaluated(record: RunRecord, split: str) -> ClipMetrics:
    evaluation = read_evaluation(record.path, split, record.trained_on)
    if evaluation is None:
        raise UserError(
            f"{record.uri} was not evaluated on the {split} split, so it cannot be compared. "
            f"Evaluate it: {evaluate_command(record.uri, split)}."
        )
    return ClipMetrics(evaluation)


def _differences(run: ClipMetrics, reference: ClipMetrics) -> dict[str, Interval | None]:
    found: dict[str, Interval | None] = {}
    values, others = (each.scored.document.metrics[each.scored.task.student.name] for each in (run, reference))
    for key, value in values.items():
        other = others.get(key)
        if value is not None and other is not None and key in run.resampled and key in reference.resampled:
            resampled = (run.resampled[key] - reference.resampled[key])[:, None]
            found[key] = seeds_and_clips([value - other], resampled, num_clips=len(run.names))
        elif value is not None and other is not None and key in {m.key for m in run.scored.task.metrics}:
            found[key] = None
    return found


def caveat(found: RunsComparison) -> str:
    """What the intervals do not cover."""
    number = clips(len(found.runs[0].clips.names), found.split)
    return (
        f"On the same {number}, minus {found.runs[0].name}. Intervals (95 %) cover the choice of clips, not the seed "
        "of training: train with several seeds to compare settings (vadv train --seeds, vadv study)."
    )


def _cells(found: RunsComparison, metric: Metric) -> list[list[str]]:
    """A row per run: value, difference, interval."""
    rows = []
    for run in found.runs:
        difference = run.differences.get(metric.key)
        shown = [MISSING, MISSING]
        if difference is not None:
            mean, low, high = (_signed(value, metric) for value in difference)
            shown = [mean, f"{low} … {high}"]
        rows.append([run.name, score(run.value(metric), percent=metric.percent), *shown])
    return rows


def _signed(value: float, metric: Metric) -> str:
    return (f"{100 * value:+.1f}" if metric.percent else f"{value:+.3f}").replace("-", "−")


def comparison_tables(found: RunsComparison) -> "Iterator[Table]":
    """Configuration, metrics and curves for a terminal."""
    from rich import box
    from rich.table import Table

    def table(title: str, *columns: str) -> "Table":
        made = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        for number, column in enumerate(columns):
            made.add_column(_plain(column), justify="right" if number else "left", overflow="fold")
        return made

    names = [run.name for run in found.runs]
    config = table("Configuration", "field", *names)
    for field, values in found.config.items():
        config.add_row(field, *map(str, values))
    yield config
    for metric in found.metrics:
        rows = table(f"{metric.title}, {SPLITS[found.split]} split", "run", metric.name, "difference", "95 % interval")
        for row in _cells(found, metric):
            rows.add_row(*map(_plain, row))
        yield rows
    metric = found.task.score_metric
    curves = table(f"Validation {metric.title} by epoch", "epoch", *names)
    values = [[score(v, percent=metric.percent) for _, v in _curve(run, found)] for run in found.runs]
    last = max(map(len, values))
    every = -(-last // _EPOCHS)
    for epoch in [e for e in range(last) if (e + 1) % every == 0 or e == last - 1]:
        curves.add_row(str(epoch + 1), *(_plain(each[epoch]) if epoch < len(each) else "" for each in values))
    yield curves


def _curve(run: ComparedRun, found: RunsComparison) -> list[tuple[float, float]]:
    return validation_points(run.record, found.task.student)


def _plain(text: str) -> str:
    return text.replace("−", "-").replace(MISSING, "-").replace("…", "to").replace("→", "-to-")


def comparison_page(found: RunsComparison) -> Page:
    """The same as a page."""
    names = [run.name for run in found.runs]
    config = [(None, [field, *map(str, values)]) for field, values in found.config.items()]
    tables = []
    for metric in found.metrics:
        columns = ("Run", metric.heading, "Difference", "95 % interval")
        shown = plain_table(metric.title, columns, [(None, row) for row in _cells(found, metric)])
        tables.append(join(tag("h3", metric.title), shown))
    picture = _curves_picture(found)
    pictures = [picture] if picture else []
    sections = [
        Section("metrics", "Metrics", caveat(found), join(*tables)),
        Section("curves", "Learning curves", "", grid(pictures, "wide"), pictures) if pictures else None,
        Section("config", "Configuration", "Fields that differ.", plain_table("Fields", ("Field", *names), config)),
    ]
    title = f"{len(names)} runs compared"
    header = join(tag("h1", title), tag("p", ", ".join(names), class_="lede"))
    return document(f"{title} · vadv compare", header, sections, "vadv compare")


def _curves_picture(found: RunsComparison) -> Picture | None:
    metric = found.task.score_metric
    curves = {run.name: _curve(run, found) for run in found.runs}
    values = [value for points in curves.values() for _, value in points]
    if not values:
        return None
    picture = Picture("curves", f"Validation {metric.heading}", WIDE)
    last = max(step for points in curves.values() for step, _ in points)
    picture.frame((0, last), with_room(min(values), max(values)), x_label="step", whole_x=True)
    for number, (name, points) in enumerate(curves.items()):
        role = _ROLES[number % len(_ROLES)]
        titles = [f"{name}, step {step:g}: {value:.3f}" for step, value in points]
        picture.line(points, role)
        picture.dots(points, role, titles, radius=2.5 if len(points) <= 40 else 1.5)
    picture.keys = [(name, _ROLES[number % len(_ROLES)]) for number, name in enumerate(curves)]
    ends = ", ".join(f"{name} ends at {points[-1][1]:.3f}" for name, points in curves.items() if points)
    picture.label = f"{picture.caption} by step: {ends}."
    return picture

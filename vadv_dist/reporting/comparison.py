"""Compare two runs clip by clip, and describe in words what the teacher gave the student."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vadv_dist.errors import UserError
from vadv_dist.reporting.run_files import RunRecord, Scored, evaluate_command, read_evaluation, read_run
from vadv_dist.reporting.words import SPLITS, clips, score

if TYPE_CHECKING:
    from vadv_dist.evaluation.paired import Interval

# The same files give the same report.
_BOOTSTRAP_SEED = 0

# Fields for the location of a run or for its teacher, which do not change what else the student gets.
_EXPECTED_TO_DIFFER = ("run.name", "run.storage", "objective", "teacher", "telemetry")


@dataclass(frozen=True)
class Comparison:
    """Two runs whose students were evaluated on the same clips.

    Attributes:
        before, after: the runs; the gain is that of `after`.
        first, second: their evaluations on the same split.
        score_before, score_after: the students' score metric, as means over clips.
        gain: how much better that of `after` is, with its 95 % interval over clips.
        num_clips: clips that both were scored on.
        differing: configuration fields that differ, except names, objective and teacher.
    """

    before: RunRecord
    after: RunRecord
    first: Scored
    second: Scored
    score_before: float
    score_after: float
    gain: "Interval"
    num_clips: int
    differing: list[str]

    def other_than(self, evaluation: Scored) -> tuple[RunRecord, Scored]:
        """The run that an evaluation is compared with, and that run's evaluation."""
        return (self.before, self.first) if evaluation is self.second else (self.after, self.second)

    @property
    def sentence(self) -> str:
        """The gain of `after` in words."""
        verdict, change = ("better", self.gain) if self.gain.mean >= 0 else ("worse", self.gain.opposite)
        values = (self.score_before, self.score_after, change.mean, change.low, change.high)
        before, after, size, low, high = (score(value, percent=False) for value in values)
        where = (f"in {self.before.name}", f"in {self.after.name}")
        if self.after.config.has_teacher and not self.before.config.has_teacher:
            where = ("alone", "with the teacher")
        return (
            f"The student’s {self.second.task.score_metric.title} is {before} {where[0]} and {after} {where[1]}, on "
            f"the same {clips(self.num_clips, self.second.split)}: {size} {verdict} "
            f"(paired bootstrap 95 % interval {low} … {high})."
        )

    @property
    def caveat(self) -> str:
        """What the interval does not cover."""
        unsure = "" if self.gain.excludes_zero else "The interval contains zero: these clips show no clear difference. "
        return (
            f"{unsure}The interval covers the choice of clips in the {SPLITS[self.second.split]} split, not the seed "
            "of training: one pair of runs cannot tell a gain from a lucky seed."
        )


def compare_runs(before: Path, after: Path) -> Comparison:
    """Compare the students of two runs on the test split.

    Args:
        before: folder of the reference, usually the student trained alone.
        after: folder of the run whose gain is measured.
    Raises:
        UserError: as `read_run`; or a run was not evaluated on the test split, or the clips differ.
    """
    return compare_records(read_run(before), read_run(after), "test")


def compare_records(before: RunRecord, after: RunRecord, split: str) -> Comparison:
    """Compare two runs on a split; see `compare_runs`."""
    from vadv_dist.config import config_to_dict
    from vadv_dist.config.load import differing_keys
    from vadv_dist.evaluation.paired import paired_bootstrap

    first, second = _evaluated(before, split), _evaluated(after, split)
    if first.task.score != second.task.score:
        names = (scored.task.score_metric.title for scored in (first, second))
        raise UserError(f"{before.uri} and {after.uri} are scored by {' and '.join(names)}, which cannot be compared.")
    rows, others = _rows(first, before), _rows(second, after)
    different = rows.keys() ^ others.keys()
    different |= {clip for clip in rows.keys() & others.keys() if rows[clip][0] != others[clip][0]}
    if different:
        raise UserError(
            f"{before.uri} and {after.uri} were not evaluated on the same clips of the {split} split: "
            f"{clips(len(different))} differ in name or label, for example {min(different)[1]!r}. "
            "Compare runs of the same data set."
        )
    pairs = [(rows[clip][1], others[clip][1]) for clip in rows]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if not pairs:
        raise UserError(f"{before.uri} and {after.uri} have no clip of the {split} split on which both have a score.")
    metric = second.task.score_metric
    scores_before, scores_after = zip(*pairs, strict=True)
    differing = differing_keys(config_to_dict(before.config), config_to_dict(after.config))
    keys = [line.split(":", 1)[0] for line in differing]
    keys = [key for key in keys if key != "student.calibrate"]  # what it came to is compared instead
    if before.config.is_calibrated != after.config.is_calibrated:
        keys.append("student.calibrate")
    if before.trained_on is not None and after.trained_on is not None:  # data sets are compared by fingerprint
        keys = [key for key in keys if key != "data.sources"]
        if not before.trained_on.has_data_of(after.trained_on):
            keys.append("the data sets they were trained on")
    return Comparison(
        before=before,
        after=after,
        first=first,
        second=second,
        score_before=float(np.mean(scores_before)),
        score_after=float(np.mean(scores_after)),
        gain=paired_bootstrap(
            [*map(metric.cost, scores_before)], [*map(metric.cost, scores_after)], seed=_BOOTSTRAP_SEED
        ),
        num_clips=len(pairs),
        differing=[key for key in keys if not key.startswith(_EXPECTED_TO_DIFFER)],
    )


def configurations(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Configuration fields in which runs differ, except name and location, with the value of each run.

    Data sets are compared by fingerprint where that is known.
    """
    from vadv_dist.config import config_to_dict

    flat = [dict(_flat(config_to_dict(run.config))) for run in runs]
    names = list(dict.fromkeys(name for each in flat for name in each))
    same_data = all(
        run.trained_on is not None and runs[0].trained_on is not None and runs[0].trained_on.has_data_of(run.trained_on)
        for run in runs
    )
    left_out = ("run.name", "run.storage", *(("data.sources",) if same_data else ()))
    found = {name: [each.get(name) for each in flat] for name in names if name not in left_out}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def _flat(raw: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _evaluated(run: RunRecord, split: str) -> Scored:
    if run.evaluation is not None and run.evaluation.split == split:
        return run.evaluation
    evaluation = read_evaluation(run.path, split, run.trained_on)
    if evaluation is None:
        raise UserError(
            f"{run.uri} was not evaluated on the {split} split, so it cannot be compared. "
            f"Evaluate it: {evaluate_command(run.uri, split)}."
        )
    return evaluation


def _rows(evaluation: Scored, run: RunRecord) -> dict[tuple[str, str], tuple[float, float]]:
    """Label and score of the student by source and name of the clip."""
    found = evaluation.predictions
    names = zip(found.source, found.clip_id, strict=True)
    rows = dict(zip(names, zip(found.label.tolist(), evaluation.clip_scores.tolist(), strict=True), strict=True))
    if twice := len(found) - len(rows):
        raise UserError(
            f"{run.uri} has several predictions for {clips(twice)} of the {evaluation.split} split, so clips cannot be "
            "matched. Fix the data set (`vadv data-check` lists them) and evaluate the run again."
        )
    return rows

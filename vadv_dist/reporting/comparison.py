"""Compare two runs clip by clip, and say in words what the teacher gave."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vadv_dist.errors import UserError
from vadv_dist.reporting.provenance import trained_on
from vadv_dist.reporting.run_files import RunRecord, Scored, evaluate_command, read_evaluation, read_run
from vadv_dist.reporting.words import SPLITS, clips, score

if TYPE_CHECKING:
    from vadv_dist.evaluation.paired import Interval

# A report that is written again says the same.
_BOOTSTRAP_SEED = 0

# Fields that say where a run is kept or what the teacher is, not what the student got besides it.
_EXPECTED_TO_DIFFER = ("run.name", "run.storage", "objective", "teacher", "telemetry")


@dataclass(frozen=True)
class Comparison:
    """Two runs whose students read the same clips.

    Attributes:
        before, after: the runs; the gain is that of `after`.
        first, second: their evaluations on the same split.
        error_before, error_after: mean errors of the students over clips, in label units.
        gain: how much less `after` errs, with its 95 % interval over clips.
        differing: fields of the configurations that differ, besides names, objective and teacher.
    """

    before: RunRecord
    after: RunRecord
    first: Scored
    second: Scored
    error_before: float
    error_after: float
    gain: "Interval"
    differing: list[str]

    @property
    def split(self) -> str:
        """The split whose clips both read."""
        return self.second.split

    def other_than(self, evaluation: Scored) -> tuple[RunRecord, Scored]:
        """The run that an evaluation is compared with, and that run's evaluation."""
        return (self.before, self.first) if evaluation is self.second else (self.after, self.second)

    @property
    def is_about_the_teacher(self) -> bool:
        """Whether the one student was trained alone and the other beside a teacher."""
        return self.after.has_teacher and not self.before.has_teacher

    @property
    def sentence(self) -> str:
        """What `after` gained, in words."""
        before, after, size = (
            score(x, percent=False) for x in (self.error_before, self.error_after, abs(self.gain.mean))
        )
        low, high = (score(x, percent=False) for x in (self.gain.low, self.gain.high))
        where = ("alone", "beside the teacher")
        if not self.is_about_the_teacher:
            where = (f"in {self.before.name}", f"in {self.after.name}")
        better, title = self.gain.mean >= 0, self.second.task.score_metric.title
        article = "an" if title[0] in "AEFHILMNORSX" else "a"
        return (
            f"The student reads with {article} {title} of {before} {where[0]} and {after} {where[1]}, on the same "
            f"{clips(len(self.second.predictions), self.split)}: {size} {'better' if better else 'worse'} "
            f"(paired bootstrap 95 % interval{'' if better else ' of the gain'} {low} … {high})."
        )

    @property
    def caveat(self) -> str:
        """What the interval leaves open."""
        sure = "" if self.gain.excludes_zero else "The interval includes zero: these clips show no clear difference. "
        return (
            f"{sure}The interval covers which clips happened to be in the {SPLITS[self.split]} split, not the seed of "
            "training: one pair of runs cannot tell a gain from a lucky seed."
        )


def compare_runs(before: Path, after: Path, split: str = "test") -> Comparison:
    """Compare the students of two evaluated runs.

    Args:
        before: folder of the run that the gain is counted from, usually the student trained alone.
        after: folder of the run whose gain is told.
        split: evaluated split that both have.
    Raises:
        UserError: as `read_run`; or a run was not evaluated on the split, or they were on different clips.
    """
    return compare_records(read_run(before), read_run(after), split)


def compare_records(before: RunRecord, after: RunRecord, split: str) -> Comparison:
    """As `compare_runs`, for runs that were read already."""
    from vadv_dist.config.load import differing_keys
    from vadv_dist.evaluation.paired import paired_bootstrap

    first, second = _evaluated(before, split), _evaluated(after, split)
    errors_before, errors_after = _errors(first, before), _errors(second, after)
    different = errors_before.keys() ^ errors_after.keys()
    labels_before, labels_after = _labels(first), _labels(second)
    different |= {clip for clip, label in labels_before.items() if labels_after.get(clip) != label}
    if different:
        raise UserError(
            f"{before.uri} and {after.uri} were not evaluated on the same clips of the {split} split: "
            f"{clips(len(different))} differ in name or label, {sorted(different)[0][1]!r} for one. "
            "Compare runs of the same data set."
        )
    a = [errors_before[clip] for clip in errors_before]
    b = [errors_after[clip] for clip in errors_before]
    gain = paired_bootstrap(a, b, seed=_BOOTSTRAP_SEED)
    keys = [line.split(":", 1)[0] for line in differing_keys(dict(before.config), dict(after.config))]
    data = trained_on(before.path), trained_on(after.path)
    if all(data):  # known by what they are, whatever they are called
        keys = [key for key in keys if key != "data.sources"]
        keys += ["the data sets they were trained on"] if data[0] != data[1] else []
    return Comparison(
        before=before,
        after=after,
        first=first,
        second=second,
        error_before=sum(a) / len(a),
        error_after=sum(b) / len(b),
        gain=gain,
        differing=[key for key in keys if not key.startswith(_EXPECTED_TO_DIFFER)],
    )


def _evaluated(run: RunRecord, split: str) -> Scored:
    if run.evaluation is not None and run.evaluation.split == split:
        return run.evaluation
    evaluation = read_evaluation(run.path, split)
    if evaluation is None:
        raise UserError(
            f"{run.uri} was not evaluated on the {split} split, so it cannot be compared. "
            f"Evaluate it: {evaluate_command(run.uri, split)}."
        )
    return evaluation


def _errors(evaluation: Scored, run: RunRecord) -> dict[tuple[str, str], float]:
    """Absolute error of the student by source and name of the clip."""
    rows = evaluation.predictions
    errors = [
        abs(logit - label) for logit, label in zip(rows.logits[evaluation.task.student.name], rows.label, strict=True)
    ]
    by_clip = dict(zip(_keys(evaluation), errors, strict=True))
    if len(by_clip) < len(errors):
        raise UserError(
            f"{run.uri} predicts {clips(len(errors) - len(by_clip))} of the {evaluation.split} split twice, so its "
            f"clips cannot be told apart. Mend the data set (`vadv data-check` names them) and evaluate again."
        )
    return by_clip


def _labels(evaluation: Scored) -> dict[tuple[str, str], float]:
    return dict(zip(_keys(evaluation), evaluation.predictions.label, strict=True))


def _keys(evaluation: Scored) -> list[tuple[str, str]]:
    return list(zip(evaluation.predictions.source, evaluation.predictions.clip_id, strict=True))

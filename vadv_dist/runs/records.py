"""Typed records of a run: lines of metrics.jsonl, result.json and evaluations."""

import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from vadv_dist.errors import UserError
from vadv_dist.evaluation.calibration import Calibration
from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.storage import Location, read_json

# None represents NaN and infinity, which JSON does not have.
Values = dict[str, int | float | None]
Metrics = dict[str, Values]
R = TypeVar("R")


class RecordError(UserError):
    """A record is damaged or was written by another version: a field is missing or has the wrong type.

    Attributes:
        what: the record.
        field: dotted name of the field.
        problem: what is wrong with it.
    """

    def __init__(self, what: str, field: str, problem: str) -> None:
        super().__init__(
            f"{what} is damaged, or was written by another version of vadv: {field}: {problem}. Use that version, or "
            "start over with another run.name."
        )
        self.what, self.field, self.problem = what, field, problem


@dataclass(frozen=True)
class Collapse:
    """A loss term whose weight is so large that the term that trains the student has no effect.

    Attributes:
        term: its name.
        ratio: its weight relative to the student's term; None if the latter is 0.
    """

    term: str
    ratio: float | None

    def __str__(self) -> str:
        times = f"{self.ratio:.0f} times" if self.ratio is not None else "infinitely more than"
        return (
            f"the weights have collapsed: the weight of {self.term} is {times} that of the student's term, which has "
            "almost no effect. Set objective.weighting to equal, dwa or fixed."
        )


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of metrics.jsonl.

    Attributes:
        step: number of updates so far.
        epoch: epoch, from 0.
        time: time of writing, in seconds since 1970.
    """

    kind: ClassVar[str]
    step: int
    epoch: int
    time: float = field(default_factory=clock.time)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain containers with finite numbers; fields with their default are left out."""
        return {"kind": self.kind, **_plain(self)}


@dataclass(frozen=True, kw_only=True)
class StartLine(Line):
    """The start of an attempt.

    Attributes:
        steps, epochs: totals of the run.
        workers: number of ranks.
        task: the task's terms, outputs and metrics.
        labels: range and threshold of the labels; None for classes.
        absent: metrics that the labels do not define, with the reasons.
        notes: one line each on how this attempt runs: the engine and why it was chosen, warnings.
        cause: why it was started in place of an earlier one of the same command: `hang`, `preemption`, `lost worker` or
            `resize`; `extended` if the run was complete with fewer epochs; else empty for the first attempt of a
            command.
    """

    kind: ClassVar[str] = "start"
    steps: int
    epochs: int
    workers: int
    task: TaskDescription
    labels: LabelScale | None = None
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cause: str = ""


@dataclass(frozen=True, kw_only=True)
class StepLine(Line):
    """The steps since the previous line.

    Attributes:
        terms: mean of each unweighted loss term and of the weighted `total`; top-level fields in the JSON.
        weights: mean weight of each term, unless fixed.
        lr, grad_norm: learning rate and gradient norm before clipping, both of the last step.
        samples_per_s, tokens_per_s: throughput of all ranks; there are no tokens without texts.
        data_wait_s, line_s: seconds that steps of rank 0 waited for data, and seconds in total.
        waits_s: seconds that steps of each rank waited for data, by rank; None for one rank.
        compute_s: seconds of each rank's forward and backward passes up to where they first wait for other ranks, by
            rank; None for one rank, and with an engine whose ranks wait for one another everywhere.
        node_bytes: bytes of shards that each node has read, by node in the order of their first ranks; None if none.
        mfu: model FLOP utilisation.
        gpu_memory_bytes: peak tensor memory of rank 0 so far.
    """

    kind: ClassVar[str] = "step"
    terms: Values
    lr: float
    grad_norm: float | None
    samples_per_s: float
    tokens_per_s: float | None
    data_wait_s: float
    line_s: float
    mfu: float | None = None
    gpu_memory_bytes: int | None = None
    weights: Values = field(default_factory=dict)
    waits_s: list[float] | None = None
    compute_s: list[float] | None = None
    node_bytes: list[int] | None = None

    @property
    def rates(self) -> Values:
        """All measurements except terms and weights."""
        return {name: getattr(self, name) for name in RATES}

    def to_json(self) -> dict[str, Any]:
        """See `Line.to_json`."""
        line = super().to_json()
        terms = line.pop("terms")
        return {"kind": self.kind, "step": self.step, "epoch": self.epoch, **terms, **line}


RATES = ("lr", "grad_norm", "samples_per_s", "tokens_per_s", "data_wait_s", "line_s", "mfu", "gpu_memory_bytes")


@dataclass(frozen=True, kw_only=True)
class EpochLine(Line):
    """An epoch and its validation.

    Attributes:
        validation: metrics by output.
        sources: the same by source, if there are several.
        remarks: sentences about outputs that have learned nothing.
        train: mean of each loss term over the epoch.
        weights: mean weight of each term, unless fixed.
        collapse: set if the weights have collapsed.
        distillation: factor of the guard and of the warm-up on the weights of the terms that distil; None without both.
        best: whether it is the best epoch so far.
        seconds: wall time of the run so far, over all attempts.
    """

    kind: ClassVar[str] = "epoch"
    validation: Metrics
    train: Values
    best: bool
    seconds: float
    sources: dict[str, Metrics] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    weights: Values = field(default_factory=dict)
    collapse: Collapse | None = None
    distillation: float | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointLine(Line):
    """A checkpoint is copied, and a thread begins to write it.

    Attributes:
        seconds: seconds that training waited for the end of the one before, and for the copy.
        last_write_s: seconds for which a thread wrote the one before, while training continued.
        resumable: False if it holds the weights of one of the best epochs, from which training cannot continue.
    """

    kind: ClassVar[str] = "checkpoint"
    seconds: float
    last_write_s: float = 0.0
    resumable: bool = True


@dataclass(frozen=True, kw_only=True)
class FaultLine(Line):
    """The run stopped with an error, described by `what`."""

    kind: ClassVar[str] = "fault"
    what: str


@dataclass(frozen=True, kw_only=True)
class StopLine(Line):
    """The attempt was asked to stop, and its last step is in a checkpoint.

    Attributes:
        cause: what asked: `SIGTERM`, `SIGUSR1`, or `preemption` for a node that leaves.
    """

    kind: ClassVar[str] = "stop"
    cause: str


@dataclass(frozen=True, kw_only=True)
class NoteLine(Line):
    """A sentence for the user about how the run proceeds, such as steps that run in a slower way."""

    kind: ClassVar[str] = "note"
    what: str


_LINES: dict[str, type[Line]] = {
    kind.kind: kind for kind in (StartLine, StepLine, EpochLine, CheckpointLine, FaultLine, NoteLine, StopLine)
}


def parse_line(raw: Any) -> Line | None:
    """Read a line of metrics.jsonl; None for an unknown kind, and for what is not an object.

    Raises:
        RecordError: a field is missing or has the wrong type.
    """
    kind = _LINES.get(str(raw.get("kind"))) if isinstance(raw, dict) else None
    if kind is None:
        return None
    values = {name: value for name, value in raw.items() if name != "kind"}
    if kind is StepLine:
        own = {f.name for f in fields(StepLine)} - {"terms"}
        terms = {name: value for name, value in values.items() if name not in own}
        values = {"terms": terms, **{name: value for name, value in values.items() if name in own}}
    return _validated(kind, values, f"A line of metrics.jsonl ({raw['kind']})")


def epoch_costs(lines: Iterable[Line]) -> Iterator[tuple[EpochLine, float]]:
    """Yield each epoch with the student's score as a cost to minimise, skipping epochs with a non-finite score."""
    task: TaskDescription | None = None
    for line in lines:
        if isinstance(line, StartLine):
            task = line.task
        elif isinstance(line, EpochLine) and task is not None:
            score = line.validation.get(task.student.name, {}).get(task.score)
            if score is not None:
                yield line, task.score_metric.cost(float(score))


@dataclass(frozen=True, kw_only=True)
class Document:
    """A JSON document of a run.

    Attributes:
        run: name of the run or export.
        task, labels, absent: as in `StartLine`.
        remarks: sentences about outputs that have learned nothing.
        data: location and fingerprint of each data set.
        texts_cut: how many texts `data.max_tokens` truncated; by split in a result.
    """

    run: str
    task: TaskDescription
    labels: LabelScale | None
    absent: dict[str, str]
    remarks: list[str]
    data: list[dict[str, Any]]
    texts_cut: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As plain containers with finite numbers."""
        return _plain(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], what: str = "The document") -> Self:
        """Read the result of `to_json`; `what` names it in errors.

        Raises:
            RecordError: a field is missing or has the wrong type.
        """
        return _validated(cls, raw, what)

    @classmethod
    def read(cls, path: Location) -> Self:
        """Read a file.

        Raises:
            UserError: it is damaged, or was written by another version.
        """
        return cls.from_json(read_json(path), str(path))


@dataclass(frozen=True, kw_only=True)
class RunResult(Document):
    """result.json of a complete run; its `data` has the label range and rows of each data set, too.

    Attributes:
        best_step, best_epoch: position of the best checkpoint.
        validation: metrics of the student at the best checkpoint.
        validation_all: metrics of every output at the best checkpoint.
        steps, epochs: numbers of steps and epochs trained.
        stopped: why training ended: `epochs`, `max_steps` or `patience`.
        folder: working directory of the command.
        wall_time_s: seconds over all attempts, with the wait for the last checkpoint.
        checkpoint_blocked_s: seconds of them in which training waited for checkpoints, the last one included.
        checkpoint_write_s: seconds for which threads wrote checkpoints, most of them while training continued.
        parameters: numbers of parameters of teacher and student, and of trained ones.
        engine, workers, device: engine, number of workers and device of the run.
        versions: versions of the packages that affect results.
        validation_by_source: metrics by source, if there are several.
        weights_collapsed: `EpochLine.collapse` of the last epoch.
        calibration: the line in the student's last layer; None if `student.calibrate` is off. The metrics above are
            without it.
    """

    best_step: int
    best_epoch: int
    validation: Values
    validation_all: Metrics
    steps: int
    epochs: int
    stopped: str
    folder: str
    wall_time_s: float
    parameters: dict[str, int]
    engine: str
    workers: int
    device: str
    versions: dict[str, str]
    checkpoint_blocked_s: float = 0.0
    checkpoint_write_s: float = 0.0
    validation_by_source: dict[str, Metrics] = field(default_factory=dict)
    weights_collapsed: Collapse | None = None
    calibration: Calibration | None = None

    @property
    def score(self) -> float:
        """The student's metric that selected the best checkpoint."""
        value = self.validation[self.task.score]
        return float("nan") if value is None else float(value)

    @property
    def cost(self) -> float:
        """The score as a cost to minimise."""
        return self.task.score_metric.cost(self.score)


@dataclass(frozen=True, kw_only=True)
class SourceScores:
    """Number of clips of one source, and their metrics by output."""

    rows: int
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class Evaluation(Document):
    """evaluation-<split>.json, the result of `vadv evaluate`.

    In the file, the metrics of each output are top-level fields.

    Attributes:
        split: the scored split.
        step: step of the checkpoint; None for an export.
        rows, dropped: numbers of clips that were scored, and left out for missing features.
        metrics: metrics by output.
        sources: scores by source.
        leaks: scored videos that are also in training data.
        other_data: whether the data sets are not the run's own.
        file: path of the written file; not stored in it.
    """

    split: str
    rows: int
    metrics: Metrics
    sources: dict[str, SourceScores]
    dropped: int
    step: int | None = None
    leaks: list[dict[str, Any]] = field(default_factory=list)
    other_data: bool = False
    file: str | None = None

    def to_json(self) -> dict[str, Any]:
        """See `Document.to_json`."""
        raw = super().to_json()
        metrics = raw.pop("metrics")
        sources = {name: {"rows": source["rows"], **source["metrics"]} for name, source in raw.pop("sources").items()}
        return {**raw, **metrics, "sources": sources}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], what: str = "The document") -> Self:
        """See `Document.from_json`."""
        names = [output["name"] for output in raw.get("task", {}).get("outputs", [])]
        sources = {
            name: {"rows": source.get("rows"), "metrics": {n: source[n] for n in names if n in source}}
            for name, source in raw.get("sources", {}).items()
        }
        metrics = {n: raw[n] for n in names if n in raw}
        return _validated(cls, {**raw, "metrics": metrics, "sources": sources}, what)


def finite(value: Any) -> Any:
    """Copy plain containers, replacing NaN and infinity by None for JSON."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _plain(record: Any) -> dict[str, Any]:
    """A record's fields, without optional ones that have their default."""
    raw: dict[str, Any] = finite(asdict(record))
    for f in fields(record):
        default = f.default_factory() if f.default_factory is not MISSING and f.name != "time" else f.default
        if default is not MISSING and getattr(record, f.name) == default:
            del raw[f.name]
    return raw


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(kind: Callable[..., R], raw: Mapping[str, Any], what: str) -> R:
    try:
        record: R = _adapter(kind).validate_python(dict(raw))
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise RecordError(what, ".".join(map(str, first["loc"])), problem) from None
    return record

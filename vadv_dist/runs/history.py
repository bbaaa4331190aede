"""The state of a run from the lines of metrics.jsonl: position, restarts, goodput, time left."""

from collections import Counter, deque
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, TypeVar

from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.runs.records import CheckpointLine, EpochLine, FaultLine, Line, StartLine, StepLine, StopLine

_N = TypeVar("_N", int, float)
# Lines over which ranks are compared: one alone has few steps, and a rank may become slow late in a run.
_RECENT_LINES = 10


class SlowestRank(NamedTuple):
    """The rank that computes for longest, and its time as a multiple of the median of the other ranks' times."""

    rank: int
    ratio: float


class RunHistory:
    """Follows one run by its lines, over all its attempts.

    When an attempt resumes from a checkpoint, lines of later steps are discarded, because those steps are repeated.

    Attributes:
        step, epoch: of the last step line, or of the fault.
        num_steps, epochs, workers: totals of the run in the last start line; None before the first.
        task: the task's terms, outputs and metrics; None before the first start line.
        absent: metrics that the labels do not define, with the reasons.
        first_time, last_time: when the first and the last line were written, in seconds since 1970.
        last_step, epoch_lines: the last step line, and the lines of all epochs.
        node_bytes: bytes of shards that each node has read in the last attempt.
        blocked_s: total seconds that training waited for checkpoints.
        restarts_by_cause: number of restarts by `StartLine.cause`; if that is empty, by the `StopLine.cause` of the
            attempt before, or as `killed` if that attempt ended without a word.
        fault: why the run failed, or None.
    """

    def __init__(self) -> None:
        self.step = self.epoch = self._starts = 0
        self.num_steps: int | None = None
        self.epochs: int | None = None
        self.workers: int | None = None
        self.task: TaskDescription | None = None
        self.absent: dict[str, str] = {}
        self.first_time: float | None = None
        self.last_time: float | None = None
        self.last_step: StepLine | None = None
        self.epoch_lines: list[EpochLine] = []
        self.node_bytes: list[int] = []
        self.blocked_s = 0.0
        self.restarts_by_cause: Counter[str] = Counter()
        self.fault: FaultLine | None = None
        self._stopped_by = ""
        self._finished_s = 0.0  # between an end and the start that extends it
        self._kept: list[tuple[int, float]] = []  # productive seconds by step
        self._productive_s = 0.0
        self._recent: deque[list[float]] = deque(maxlen=_RECENT_LINES)  # seconds of computing, by rank
        self._computed_s: list[float] = []  # likewise, over the last attempt
        self._attempt: tuple[int, float] | None = None  # step and time at which the last attempt began

    def __call__(self, line: Line) -> None:
        """Update the state from a line."""
        self.first_time = line.time if self.first_time is None else self.first_time
        before, self.last_time = self.last_time, line.time
        if isinstance(line, StartLine) and line.cause == "extended" and before is not None:
            self._finished_s += line.time - before
        if isinstance(line, StartLine):
            self._start(line)
        elif isinstance(line, StepLine):
            self._step(line)
        elif isinstance(line, EpochLine):
            self.epoch_lines.append(line)
        elif isinstance(line, CheckpointLine):
            self.blocked_s += line.seconds
        elif isinstance(line, StopLine):
            self._stopped_by = line.cause
        elif isinstance(line, FaultLine):
            self.fault = line
            self.step, self.epoch = line.step, line.epoch

    @property
    def restarts(self) -> int:
        """Number of restarts."""
        return max(0, self._starts - 1)

    @property
    def preemptions(self) -> int:
        """Number of restarts after a notice that a node or machine would be taken away."""
        return self.restarts_by_cause["preemption"] + self.restarts_by_cause["SIGUSR1"]

    @property
    def goodput(self) -> float | None:
        """Fraction of the time since the first start spent on steps that are kept, without waiting for data.

        The time between the end of a run and its extension by more epochs does not count.
        """
        if not self._productive_s or self.first_time is None or self.last_time is None:
            return None
        return min(1.0, self._productive_s / max(self.last_time - self.first_time - self._finished_s, 1e-9))

    @property
    def wait_ratio(self) -> float | None:
        """Fraction of the last line's time spent waiting for data."""
        line = self.last_step
        return line.data_wait_s / line.line_s if line is not None and line.line_s else None

    @property
    def compute_ratios(self) -> list[float]:
        """By rank, its time of computing in the last ten lines over the median of the others'; [] if not measured."""
        return _ratios([sum(ranks) for ranks in zip(*self._recent, strict=True)])

    @property
    def slowest_rank(self) -> SlowestRank | None:
        """The slowest rank in the last ten lines; None if not measured."""
        return _slowest(self.compute_ratios)

    @property
    def slowest_rank_overall(self) -> SlowestRank | None:
        """The slowest rank in the last attempt; None if not measured."""
        return _slowest(_ratios(self._computed_s))

    @property
    def seconds_left(self) -> float | None:
        """Time to the last planned step at the pace of this attempt, validation and checkpoints included."""
        if self.num_steps is None or self._attempt is None or self.last_step is None:
            return None
        step, began = self._attempt
        if self.step <= step:
            return None
        pace_s = (self.last_step.time - began) / (self.step - step)
        return max(0, self.num_steps - self.step) * pace_s

    def _start(self, line: StartLine) -> None:
        if self._starts:
            self.restarts_by_cause[line.cause or self._stopped_by or "killed"] += 1
        self._starts += 1
        self._stopped_by = ""
        self.step, self.epoch = line.step, line.epoch
        self.num_steps, self.epochs, self.workers = line.steps, line.epochs, line.workers
        self.task, self.absent = line.task, line.absent
        self.fault = None
        self._attempt = (line.step, line.time)
        self.node_bytes, self._computed_s = [], []
        self._recent.clear()
        # A checkpoint may be from the validation of an epoch, which is then repeated.
        self.epoch_lines = [each for each in self.epoch_lines if each.step <= line.step and each.epoch < line.epoch]
        while self._kept and self._kept[-1][0] > line.step:
            self._productive_s -= self._kept.pop()[1]

    def _step(self, line: StepLine) -> None:
        self.step, self.epoch, self.last_step = line.step, line.epoch, line
        productive_s = max(0.0, line.line_s - line.data_wait_s)
        self._kept.append((line.step, productive_s))
        self._productive_s += productive_s
        if line.compute_s is not None:
            self._recent.append(line.compute_s)
            self._computed_s = _added(self._computed_s, line.compute_s)
        if line.node_bytes is not None:
            self.node_bytes = _added(self.node_bytes, line.node_bytes)


def data_read(node_bytes: Sequence[int]) -> str:
    """What nodes have read, as words; empty if nothing."""
    if not any(node_bytes):
        return ""
    unit, size = ("GiB", 2**30) if max(node_bytes) >= 2**30 else ("MiB", 2**20)
    least, most = (f"{found / size:.3g}" for found in (min(node_bytes), max(node_bytes)))
    nodes = f" on each of {len(node_bytes)} nodes" if len(node_bytes) > 1 else ""
    return f"{most if least == most else f'{least} to {most}'} {unit}{nodes}"


def _added(sums: Sequence[_N], values: Sequence[_N]) -> list[_N]:
    """Sums by place; no sums yet are zeros."""
    if not sums:
        return list(values)
    return [a + b for a, b in zip(sums, values, strict=True)]


def _ratios(seconds: Sequence[float]) -> list[float]:
    """Each value over the median of the others; empty if there are none, or a median is 0."""
    if len(seconds) < 2:
        return []
    others = [median(mine for rank, mine in enumerate(seconds) if rank != at) for at in range(len(seconds))]
    return [mine / other for mine, other in zip(seconds, others, strict=True)] if min(others) > 0 else []


def _slowest(ratios: Sequence[float]) -> SlowestRank | None:
    if not ratios:
        return None
    rank = max(range(len(ratios)), key=ratios.__getitem__)
    return SlowestRank(rank, ratios[rank])

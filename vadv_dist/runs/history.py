"""The state of a run from the lines of metrics.jsonl: position, restarts, goodput, time left."""

from collections import Counter

from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.runs.records import CheckpointLine, EpochLine, FaultLine, Line, StartLine, StepLine, StopLine


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
        self.blocked_s = 0.0
        self.restarts_by_cause: Counter[str] = Counter()
        self.fault: FaultLine | None = None
        self._stopped_by = ""
        self._kept: list[tuple[int, float]] = []  # productive seconds by step
        self._productive_s = 0.0
        self._attempt: tuple[int, float] | None = None  # step and time at which the last attempt began

    def __call__(self, line: Line) -> None:
        """Update the state from a line."""
        self.first_time = line.time if self.first_time is None else self.first_time
        self.last_time = line.time
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
        """Fraction of the time since the first start spent on steps that are kept, without waiting for data."""
        if not self._productive_s or self.first_time is None or self.last_time is None:
            return None
        return min(1.0, self._productive_s / max(self.last_time - self.first_time, 1e-9))

    @property
    def wait_ratio(self) -> float | None:
        """Fraction of the last line's time spent waiting for data."""
        line = self.last_step
        return line.data_wait_s / line.line_s if line is not None and line.line_s else None

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
        self.epoch_lines = [epoch for epoch in self.epoch_lines if epoch.step <= line.step]
        while self._kept and self._kept[-1][0] > line.step:
            self._productive_s -= self._kept.pop()[1]

    def _step(self, line: StepLine) -> None:
        self.step, self.epoch, self.last_step = line.step, line.epoch, line
        productive_s = max(0.0, line.line_s - line.data_wait_s)
        self._kept.append((line.step, productive_s))
        self._productive_s += productive_s

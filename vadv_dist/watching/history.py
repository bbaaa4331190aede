"""The state of a run from the lines of metrics.jsonl: position, restarts, goodput, time left."""

from vadv_dist.evaluation.description import TaskDescription
from vadv_dist.runs.records import CheckpointLine, EpochLine, FaultLine, Line, StartLine, StepLine


class RunHistory:
    """Follows one run by its lines, over all its attempts.

    Where an attempt goes on from a checkpoint, the lines of steps after that are taken back: those steps are repeated.

    Attributes:
        step, epoch: of the last step line, or of the fault.
        num_steps, epochs, workers: of the whole run, as the last start says; None where no line tells.
        starts: times that the workers were started.
        task: the task's terms, outputs and metrics, as the last start says; None before the first.
        absent: metrics that the labels' range does not define, with the reason of each.
        first_time, last_time: when the first and the last line were written, in seconds since 1970.
        last_step, epoch_lines: the last step line, and the lines of all epochs.
        blocked_s: seconds for which checkpoints have kept training from going on.
        wait_s: seconds for which training waited for data.
        fault: the line that says why the run failed, or None.
    """

    def __init__(self) -> None:
        self.step = self.epoch = self.starts = 0
        self.num_steps: int | None = None
        self.epochs: int | None = None
        self.workers: int | None = None
        self.task: TaskDescription | None = None
        self.absent: dict[str, str] = {}
        self.first_time: float | None = None
        self.last_time: float | None = None
        self.last_step: StepLine | None = None
        self.epoch_lines: list[EpochLine] = []
        self.blocked_s = self.wait_s = 0.0
        self.fault: FaultLine | None = None
        self._kept: list[tuple[int, float]] = []  # productive seconds by step
        self._productive_s = 0.0
        self._attempt: tuple[int, float] | None = None  # where and when the last attempt began

    def __call__(self, line: Line) -> None:
        """Take over one line."""
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
        elif isinstance(line, FaultLine):
            self.fault = line
            self.step, self.epoch = line.step, line.epoch

    @property
    def restarts(self) -> int:
        """Times that the run was started again."""
        return max(0, self.starts - 1)

    @property
    def goodput(self) -> float | None:
        """Share of the time since the first start that went into steps which are kept, waiting for data left out."""
        if not self._productive_s or self.first_time is None or self.last_time is None:
            return None
        return min(1.0, self._productive_s / max(self.last_time - self.first_time, 1e-9))

    @property
    def wait_ratio(self) -> float | None:
        """Share of the last line's time that was spent waiting for data."""
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
        self.starts += 1
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
        self.wait_s += line.data_wait_s
        productive_s = max(0.0, line.line_s - line.data_wait_s)
        self._kept.append((line.step, productive_s))
        self._productive_s += productive_s

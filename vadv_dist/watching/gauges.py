"""A run's lines as `vadv_*` gauges, whoever serves them."""

import contextlib
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vadv_dist.runs.records import EpochLine, Line, Metrics, StepLine
from vadv_dist.watching.history import RunHistory

COMMON_LABELS = ("run", "trial", "source")
# Of what is no metric of a single data set.
ALL_SOURCES = "all"


@dataclass(frozen=True)
class Gauge:
    """One kind of gauge: its help text, and its labels besides those that all have."""

    text: str
    labels: tuple[str, ...] = ()

    @property
    def all_labels(self) -> tuple[str, ...]:
        """Every label, in order."""
        return (*COMMON_LABELS, *self.labels)


GAUGES = {
    "vadv_loss": Gauge("Unweighted loss term, or the weighted total, mean since the line before", ("term",)),
    "vadv_loss_weight": Gauge("Weight of a loss term where objective.weighting is not fixed, likewise", ("term",)),
    "vadv_validation": Gauge("Metric on the validation split, where the labels define it", ("model", "metric")),
    "vadv_learning_rate": Gauge("Learning rate of pretrained weights"),
    "vadv_gradient_norm": Gauge("Norm of the gradient before clipping"),
    "vadv_samples_per_second": Gauge("Clips trained on per second, over all workers"),
    "vadv_tokens_per_second": Gauge("Tokens trained on per second, over all workers, without padding"),
    "vadv_model_flop_utilisation": Gauge("Model FLOP per second over the peak of all devices"),
    "vadv_data_wait_seconds": Gauge("Seconds waited for data since the line before"),
    "vadv_data_wait_ratio": Gauge("Share of the time since the line before that was spent waiting for data"),
    "vadv_checkpoint_blocked_seconds": Gauge("Seconds for which checkpoints have kept training from going on so far"),
    "vadv_gpu_memory_bytes": Gauge("Most memory that tensors of rank 0 have taken on its GPU so far"),
    "vadv_restarts": Gauge("Times that the run was started again"),
    "vadv_goodput": Gauge("Share of the time since the first start that went into steps which are kept"),
    "vadv_step": Gauge("Updates made"),
    "vadv_planned_steps": Gauge("Updates that the whole run makes"),
    "vadv_epoch": Gauge("Epoch, from 0"),
    "vadv_last_line_timestamp_seconds": Gauge("When the run last told something, in seconds since 1970"),
    "vadv_loss_not_finite": Gauge("1 where the run stopped because its loss was no number, else 0"),
    "vadv_disk_free_bytes": Gauge("Free bytes on the disk of the run's folder"),
    "vadv_disk_size_bytes": Gauge("Size of the disk of the run's folder"),
}
_OF_STEP_LINE = {
    "lr": "vadv_learning_rate",
    "grad_norm": "vadv_gradient_norm",
    "samples_per_s": "vadv_samples_per_second",
    "tokens_per_s": "vadv_tokens_per_second",
    "mfu": "vadv_model_flop_utilisation",
    "data_wait_s": "vadv_data_wait_seconds",
    "gpu_memory_bytes": "vadv_gpu_memory_bytes",
    "step": "vadv_step",
    "epoch": "vadv_epoch",
}


@dataclass(frozen=True)
class Sample:
    """One value of a gauge; `labels` are those of `Gauge.all_labels`, in that order."""

    name: str
    labels: tuple[str, ...]
    value: float


class RunGauges:
    """The gauges of one run.

    Args:
        run: the run's name.
        trial: the trial of a search that it is; empty where it is none.
        disk: a folder on the disk that the run writes to; None where that is an object store.
    """

    def __init__(self, run: str, *, trial: str = "", disk: Path | None = None) -> None:
        self.history = RunHistory()
        self._run, self._trial, self._disk = run, trial, disk
        self._values: dict[tuple[str, tuple[str, ...]], float] = {}
        self._lock = threading.Lock()  # a scrape comes in a thread of its own

    def __call__(self, line: Line) -> None:
        """Take over one line."""
        with self._lock:
            self.history(line)
            if isinstance(line, StepLine):
                for field, name in _OF_STEP_LINE.items():
                    self._set(name, getattr(line, field))
                for term, value in line.terms.items():
                    self._set("vadv_loss", value, term)
                for term, value in line.weights.items():
                    self._set("vadv_loss_weight", value, term)
            elif isinstance(line, EpochLine):
                self._validation(ALL_SOURCES, line.validation)
                for source, metrics in line.sources.items():
                    self._validation(source, metrics)
            self._summary()

    def replay(self, lines: Iterable[Line]) -> None:
        """Take over the lines of earlier attempts, as they stand in metrics.jsonl."""
        for line in lines:
            self(line)

    def samples(self) -> list[Sample]:
        """Every value as it stands now, ordered by name."""
        with self._lock:
            found = [Sample(name, labels, value) for (name, labels), value in sorted(self._values.items())]
        if self._disk is not None:
            with contextlib.suppress(OSError):  # a shared disk that does not answer just now
                usage = shutil.disk_usage(self._disk)
                labels = (self._run, self._trial, ALL_SOURCES)
                found.append(Sample("vadv_disk_free_bytes", labels, usage.free))
                found.append(Sample("vadv_disk_size_bytes", labels, usage.total))
        return found

    def _validation(self, source: str, metrics: Metrics) -> None:
        for model, values in metrics.items():
            for metric, value in values.items():
                self._set("vadv_validation", value, model, metric, source=source)

    def _summary(self) -> None:
        history = self.history
        self._set("vadv_data_wait_ratio", history.wait_ratio)
        self._set("vadv_checkpoint_blocked_seconds", history.blocked_s)
        self._set("vadv_restarts", history.restarts)
        self._set("vadv_goodput", history.goodput)
        self._set("vadv_planned_steps", history.num_steps)
        self._set("vadv_last_line_timestamp_seconds", history.last_time)
        self._set("vadv_loss_not_finite", float(history.fault is not None))

    def _set(self, name: str, value: float | None, *labels: str, source: str = ALL_SOURCES) -> None:
        """Set a value; one that is not known any more ends."""
        key = (name, (self._run, self._trial, source, *labels))
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = float(value)

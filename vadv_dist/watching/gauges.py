"""Metrics of a run as `vadv_*` gauges, for the HTTP endpoint and for Ray."""

import contextlib
import shutil
import threading
from pathlib import Path
from typing import NamedTuple

from vadv_dist.runs.history import RunHistory
from vadv_dist.runs.records import EpochLine, Line, Metrics, StartLine, StepLine

COMMON_LABELS = ("run", "trial", "source")
# The source of values that do not belong to a single data set.
ALL_SOURCES = "all"


class Gauge(NamedTuple):
    """A gauge: its help text, and its labels besides the common ones."""

    text: str
    labels: tuple[str, ...] = ()

    @property
    def all_labels(self) -> tuple[str, ...]:
        """All labels, in order."""
        return (*COMMON_LABELS, *self.labels)


GAUGES = {
    "vadv_loss": Gauge("Unweighted loss term, or the weighted total, mean since the previous line", ("term",)),
    "vadv_loss_weight": Gauge("Mean weight of a loss term since the previous line, unless fixed", ("term",)),
    "vadv_validation": Gauge("Metric on the validation split, if the labels define it", ("model", "metric")),
    "vadv_learning_rate": Gauge("Learning rate of pretrained weights"),
    "vadv_gradient_norm": Gauge("Norm of the gradient before clipping"),
    "vadv_samples_per_second": Gauge("Training clips per second, over all workers"),
    "vadv_tokens_per_second": Gauge("Training tokens per second, over all workers, without padding"),
    "vadv_model_flop_utilisation": Gauge("Model FLOP per second over the peak of all devices"),
    "vadv_data_wait_seconds": Gauge("Seconds spent waiting for data since the previous line"),
    "vadv_rank_data_wait_seconds": Gauge("Seconds that a rank waited for data since the previous line", ("rank",)),
    "vadv_rank_compute_seconds": Gauge(
        "Seconds that a rank computed before it waited for others, since the previous line", ("rank",)
    ),
    "vadv_rank_compute_ratio": Gauge("The same over the median of the other ranks, over ten lines", ("rank",)),
    "vadv_node_read_bytes": Gauge("Bytes of shards that a node has read in this attempt", ("node",)),
    "vadv_data_wait_ratio": Gauge("Fraction of the time since the previous line spent waiting for data"),
    "vadv_checkpoint_blocked_seconds": Gauge("Total seconds that training waited for checkpoints"),
    "vadv_gpu_memory_bytes": Gauge("Peak memory of tensors of rank 0 on its GPU"),
    "vadv_restarts": Gauge("Number of restarts of the run"),
    "vadv_restarts_by_cause": Gauge("Number of restarts of the run, by what caused them", ("cause",)),
    "vadv_preemptions": Gauge("Number of restarts after a notice that a node or machine would be taken away"),
    "vadv_goodput": Gauge("Fraction of the time since the first start spent on steps that are kept"),
    "vadv_step": Gauge("Updates so far"),
    "vadv_planned_steps": Gauge("Updates of the whole run"),
    "vadv_epoch": Gauge("Epoch, from 0"),
    "vadv_last_line_timestamp_seconds": Gauge("Time of the last line, in seconds since 1970"),
    "vadv_loss_not_finite": Gauge("1 if the run stopped because its loss was NaN or infinity, else 0"),
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


class Sample(NamedTuple):
    """One value of a gauge; `labels` are the values of `Gauge.all_labels`."""

    name: str
    labels: tuple[str, ...]
    value: float


class RunGauges:
    """The gauges of one run.

    Args:
        run: the run's name.
        trial: its trial in a search; empty outside a search.
        disk: a folder on the disk that the run writes to; None in an object store.
    """

    def __init__(self, run: str, *, trial: str = "", disk: Path | None = None) -> None:
        self.history = RunHistory()
        self._run, self._trial, self._disk = run, trial, disk
        self._values: dict[tuple[str, tuple[str, ...]], float] = {}
        self._lock = threading.Lock()  # scrapes come from another thread

    def __call__(self, line: Line) -> None:
        """Update the gauges from a line."""
        with self._lock:
            self.history(line)
            if isinstance(line, StepLine):
                for field, name in _OF_STEP_LINE.items():
                    self._set(name, getattr(line, field))
                for rank, wait_s in enumerate(line.waits_s or ()):
                    self._set("vadv_rank_data_wait_seconds", wait_s, str(rank))
                for rank, seconds in enumerate(line.compute_s or ()):
                    self._set("vadv_rank_compute_seconds", seconds, str(rank))
                for term, value in line.terms.items():
                    self._set("vadv_loss", value, term)
                for term, value in line.weights.items():
                    self._set("vadv_loss_weight", value, term)
            elif isinstance(line, EpochLine):
                self._validation(ALL_SOURCES, line.validation)
                for source, metrics in line.sources.items():
                    self._validation(source, metrics)
            elif isinstance(line, StartLine):
                self._forget("vadv_rank_", "vadv_node_")
            history = self.history
            for rank, ratio in enumerate(history.compute_ratios):
                self._set("vadv_rank_compute_ratio", ratio, str(rank))
            for node, read in enumerate(history.node_bytes):
                self._set("vadv_node_read_bytes", read, str(node))
            self._set("vadv_data_wait_ratio", history.wait_ratio)
            self._set("vadv_checkpoint_blocked_seconds", history.blocked_s)
            self._set("vadv_restarts", history.restarts)
            self._set("vadv_preemptions", history.preemptions)
            for cause, restarts in history.restarts_by_cause.items():
                self._set("vadv_restarts_by_cause", restarts, cause)
            self._set("vadv_goodput", history.goodput)
            self._set("vadv_planned_steps", history.num_steps)
            self._set("vadv_last_line_timestamp_seconds", history.last_time)
            self._set("vadv_loss_not_finite", float(history.fault is not None))

    def samples(self) -> list[Sample]:
        """All current values, ordered by name."""
        with self._lock:
            found = [Sample(name, labels, value) for (name, labels), value in sorted(self._values.items())]
        if self._disk is not None:
            with contextlib.suppress(OSError):  # a shared disk that does not respond at the moment
                usage = shutil.disk_usage(self._disk)
                labels = (self._run, self._trial, ALL_SOURCES)
                found.append(Sample("vadv_disk_free_bytes", labels, usage.free))
                found.append(Sample("vadv_disk_size_bytes", labels, usage.total))
        return found

    def _validation(self, source: str, metrics: Metrics) -> None:
        for model, values in metrics.items():
            for metric, value in values.items():
                self._set("vadv_validation", value, model, metric, source=source)

    def _forget(self, *prefixes: str) -> None:
        """Remove the values of ranks and nodes, of which an attempt may have fewer than the one before."""
        self._values = {key: value for key, value in self._values.items() if not key[0].startswith(prefixes)}

    def _set(self, name: str, value: float | None, *labels: str, source: str = ALL_SOURCES) -> None:
        """Set a value; None removes it."""
        key = (name, (self._run, self._trial, source, *labels))
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = float(value)

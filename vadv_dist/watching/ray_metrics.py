"""A run's gauges through Ray: each node's metrics agent serves what the workers on it have recorded.

Ray adds `ray_` to the names, and drops a gauge that was not recorded for two of its report intervals. So values are
recorded again and again while the run lasts, and end by themselves when it does.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vadv_dist.watching.gauges import GAUGES, RunGauges

logger = logging.getLogger(__name__)

# Ray's own default, in milliseconds.
_REPORT_INTERVAL = ("RAY_metrics_report_interval_ms", 10_000)


@contextmanager
def ray_metrics(run: str, *, trial: str = "", disk: Path | None = None) -> Iterator[RunGauges]:
    """Record a run's gauges with Ray while the block lasts; this process must be one of Ray's.

    Where the run failed, the end of the block waits until Ray has reported that.

    Args:
        run, trial, disk: see `RunGauges`.
    """
    from ray.util.metrics import Gauge

    gauges = RunGauges(run, trial=trial, disk=disk)
    recorders: dict[str, Gauge] = {}
    interval_s = _report_interval_s()
    ended = threading.Event()

    def record() -> None:
        for sample in gauges.samples():
            gauge = GAUGES[sample.name]
            if sample.name not in recorders:
                recorders[sample.name] = Gauge(sample.name, gauge.text, tag_keys=gauge.all_labels)
            recorders[sample.name].set(sample.value, tags=dict(zip(gauge.all_labels, sample.labels, strict=True)))

    def try_to_record() -> None:
        try:
            record()
        except Exception as error:  # of Ray's own; a training does not end because nobody can see it
            logger.warning("metrics could not be handed to Ray: %s", error)

    def keep_recording() -> None:
        while not ended.wait(interval_s / 2):
            try_to_record()

    thread = threading.Thread(target=keep_recording, name="vadv-metrics", daemon=True)
    thread.start()
    try:
        yield gauges
    finally:
        ended.set()
        thread.join()
        try_to_record()
        if gauges.history.fault is not None:
            threading.Event().wait(1.5 * interval_s)


def _report_interval_s() -> float:
    name, default = _REPORT_INTERVAL
    try:
        interval_ms = float(os.environ[name])
    except (KeyError, ValueError):
        interval_ms = default
    return max(interval_ms, 1000) / 1000

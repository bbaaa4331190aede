"""A run's gauges through Ray: the metrics agent of each node serves what the workers on it record.

Ray prefixes the names with `ray_`, and drops a gauge that is not recorded for two report intervals. The values are
therefore recorded repeatedly while the run lasts, and disappear after it.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vadv_dist.watching.gauges import GAUGES, RunGauges

logger = logging.getLogger(__name__)

_REPORT_INTERVAL_MS = "RAY_metrics_report_interval_ms"  # 10 s unless set, as in Ray


@contextmanager
def ray_metrics(run: str, *, trial: str = "", disk: Path | None = None) -> Iterator[RunGauges]:
    """Record a run's gauges with Ray until the context exits; this process must be connected to Ray.

    If the run failed, the exit waits until Ray has reported it.

    Args:
        run, trial, disk: see `RunGauges`.
    """
    from ray.util.metrics import Gauge

    gauges = RunGauges(run, trial=trial, disk=disk)
    recorders: dict[str, Gauge] = {}
    interval_s = max(float(os.environ.get(_REPORT_INTERVAL_MS, 10_000)), 1000) / 1000
    ended = threading.Event()

    def record() -> None:
        try:
            for name, labels, value in gauges.samples():
                gauge = GAUGES[name]
                if name not in recorders:
                    recorders[name] = Gauge(name, gauge.text, tag_keys=gauge.all_labels)
                recorders[name].set(value, tags=dict(zip(gauge.all_labels, labels, strict=True)))
        except Exception as error:  # whatever Ray raises must not end training
            logger.warning("metrics could not be recorded with Ray: %s", error)

    def keep_recording() -> None:
        while not ended.wait(interval_s / 2):
            record()

    thread = threading.Thread(target=keep_recording, name="vadv-metrics", daemon=True)
    thread.start()
    try:
        yield gauges
    finally:
        ended.set()
        thread.join()
        record()
        if gauges.history.fault is not None:
            time.sleep(1.5 * interval_s)

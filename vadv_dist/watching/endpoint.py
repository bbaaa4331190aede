"""Serve a run's metrics to Prometheus over HTTP on the loopback address."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from vadv_dist.errors import StoppedError, UserError
from vadv_dist.watching.gauges import GAUGES, RunGauges

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

# Where somebody has read the endpoint twice lately, the last values are held for one more visit, but not longer.
_REGULAR, _RECENT_S, _HOLD_S = 2, 60.0, 20.0
# Time for the answer to that visit to be written out.
_ANSWER_S = 0.5


class _Collector:
    """What prometheus_client asks at every scrape."""

    def __init__(self, gauges: RunGauges) -> None:
        self._gauges = gauges
        self.visits: deque[float] = deque(maxlen=_REGULAR)

    def describe(self) -> list["GaugeMetricFamily"]:
        """Nothing beforehand: registering is no scrape."""
        return []

    def collect(self) -> Iterator["GaugeMetricFamily"]:
        """Every gauge as it stands now."""
        from prometheus_client.core import GaugeMetricFamily

        began = time.monotonic()
        for name, samples in groupby(self._gauges.samples(), key=lambda sample: sample.name):
            gauge = GAUGES[name]
            family = GaugeMetricFamily(name, gauge.text, labels=gauge.all_labels)
            for sample in samples:
                family.add_metric(sample.labels, sample.value)
            yield family
        self.visits.append(began)


@contextmanager
def serve_metrics(
    run: str,
    port: int | None,
    *,
    trial: str = "",
    disk: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[RunGauges | None]:
    """Serve a run's gauges on the loopback address until the context exits; `port` None serves nothing.

    If a scraper reads the gauges regularly, the exit waits at most 20 s for it to read the last values, unless Ctrl-C
    or SIGTERM interrupts it.

    Args:
        run, trial, disk: see `RunGauges`.
        port: a port on 127.0.0.1; 0 chooses a free one.
        say: receives a message if the exit waits.
    Raises:
        UserError: the port is in use.
    """
    if port is None:
        yield None
        return
    from prometheus_client import CollectorRegistry, start_http_server

    gauges = RunGauges(run, trial=trial, disk=disk)
    collector = _Collector(gauges)
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise UserError(
            f"telemetry.port {port} cannot be used: {error.strerror}. Choose another port, or null."
        ) from None
    try:
        try:
            yield gauges
        except (KeyboardInterrupt, StoppedError):
            raise
        except BaseException:
            _hold(collector, say)
            raise
        _hold(collector, say)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _hold(collector: _Collector, say: Callable[[str], None]) -> None:
    """Wait for one more scrape if scrapes are regular."""
    began, visits = time.monotonic(), collector.visits
    if len(visits) < _REGULAR or began - visits[0] > _RECENT_S:
        return
    say("waiting for Prometheus to read the last values …")
    while visits[-1] < began and time.monotonic() - began < _HOLD_S:
        time.sleep(0.05)
    time.sleep(_ANSWER_S)

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

# If there were two scrapes within a minute, the last values are kept for one more scrape, up to 20 s.
_REGULAR, _RECENT_S, _HOLD_S = 2, 60.0, 20.0
# Time for sending the response to that scrape.
_RESPONSE_S = 0.5


class _Collector:
    """Called by prometheus_client at each scrape."""

    def __init__(self, gauges: RunGauges) -> None:
        self._gauges = gauges
        self.scrapes: deque[float] = deque(maxlen=_REGULAR)

    def describe(self) -> list["GaugeMetricFamily"]:
        """Return nothing, so that registering does not count as a scrape."""
        return []

    def collect(self) -> Iterator["GaugeMetricFamily"]:
        """Yield all gauges."""
        from prometheus_client.core import GaugeMetricFamily

        began = time.monotonic()
        for name, samples in groupby(self._gauges.samples(), key=lambda sample: sample.name):
            gauge = GAUGES[name]
            family = GaugeMetricFamily(name, gauge.text, labels=gauge.all_labels)
            for sample in samples:
                family.add_metric(sample.labels, sample.value)
            yield family
        self.scrapes.append(began)


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
            _wait_for_scrape(collector, say)
            raise
        _wait_for_scrape(collector, say)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _wait_for_scrape(collector: _Collector, say: Callable[[str], None]) -> None:
    """Wait for one more scrape if scrapes are regular."""
    began, scrapes = time.monotonic(), collector.scrapes
    if len(scrapes) < _REGULAR or began - scrapes[0] > _RECENT_S:
        return
    say("waiting for Prometheus to read the last values …")
    while scrapes[-1] < began and time.monotonic() - began < _HOLD_S:
        time.sleep(0.05)
    time.sleep(_RESPONSE_S)

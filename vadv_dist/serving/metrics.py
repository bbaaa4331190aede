"""What a server tells Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from vadv_dist import __version__
from vadv_dist.serving.batcher import Answer, BatchRecord

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class ServeMetrics:
    """Metrics of one server, in a registry of its own.

    Args:
        name: of its student's run.
        items: what requests hold: `texts` or `vectors`.
        queued: returns the number of items that wait.
        is_ready: returns whether it is ready.
    """

    def __init__(self, name: str, items: str, *, queued: Callable[[], float], is_ready: Callable[[], bool]) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "vadv_serve_requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "vadv_serve_request_seconds",
            "Time from a request's head to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("vadv_serve_requests_in_flight", "Requests without an answer yet.", registry=registry)
        self._items = Counter(f"vadv_serve_{items}", f"{items.capitalize()} of answered requests.", registry=registry)
        self._tokens = self._truncated = self.batch_tokens = None
        if items == "texts":  # a vector has none
            self.batch_tokens = Histogram(
                "vadv_serve_batch_tokens", "Tokens of a batch.", buckets=_TOKENS, registry=registry
            )
            self._tokens = Counter("vadv_serve_tokens", "Tokens read.", registry=registry)
            self._truncated = Counter("vadv_serve_truncated_texts", "Texts truncated.", registry=registry)
        self.repeated = Counter(
            "vadv_serve_repeated_requests", "Requests sent again because their replica ended.", registry=registry
        )
        self.batch_items = Histogram(
            f"vadv_serve_batch_{items}", f"{items.capitalize()} of a batch.", buckets=_ITEMS, registry=registry
        )
        self.batch_seconds = Histogram(
            "vadv_serve_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=registry
        )
        waiting = f"{items.capitalize()} that wait."
        Gauge(f"vadv_serve_queued_{items}", waiting, registry=registry).set_function(queued)
        Gauge("vadv_serve_ready", "1 if ready for requests.", registry=registry).set_function(lambda: float(is_ready()))
        info = Gauge("vadv_serve_student", "Always 1.", ["name", "version"], registry=registry)
        info.labels(name, __version__).set(1)
        ProcessCollector(registry=registry)

    def count(self, answer: Answer) -> None:
        """Count an answer."""
        self._items.inc(len(answer.results))
        if self._tokens is not None and self._truncated is not None:
            self._tokens.inc(answer.num_tokens)
            self._truncated.inc(answer.num_truncated)

    def observe_batch(self, record: BatchRecord) -> None:
        """Count a batch."""
        self.batch_items.observe(record.num_items)
        if self.batch_tokens is not None:
            self.batch_tokens.observe(record.num_tokens)
        self.batch_seconds.observe(record.seconds)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

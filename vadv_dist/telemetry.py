"""The one door to metrics: a run's lines as Prometheus gauges, served on this machine alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vadv_dist.errors import UserError

_RATES = {
    "lr": ("vadv_learning_rate", "Learning rate of pretrained weights"),
    "grad_norm": ("vadv_gradient_norm", "Norm of the gradient before clipping"),
    "samples_per_s": ("vadv_samples_per_second", "Clips trained on per second"),
    "tokens_per_s": ("vadv_tokens_per_second", "Tokens trained on per second"),
    "data_wait_s": ("vadv_data_wait_seconds", "Seconds waited for data since the line before"),
    "step": ("vadv_step", "Updates made"),
    "epoch": ("vadv_epoch", "Epoch, from 0"),
}
_NOT_TERMS = {"kind", "time", *_RATES}


class RunMetrics:
    """Gauges of one run, set from the lines of its metrics.jsonl."""

    def __init__(self, run: str) -> None:
        from prometheus_client import CollectorRegistry, Gauge

        self.registry = CollectorRegistry()
        self._run = run
        self._rates = {key: Gauge(name, text, ["run"], registry=self.registry) for key, (name, text) in _RATES.items()}
        self._loss = Gauge("vadv_loss", "Unweighted loss term, or total", ["run", "term"], registry=self.registry)
        self._validation = Gauge(
            "vadv_validation", "Metric on the validation split", ["run", "model", "metric"], registry=self.registry
        )

    def __call__(self, line: dict[str, Any]) -> None:
        """Take over one line."""
        if line.get("kind") == "step":
            for key, value in line.items():
                if value is None:
                    continue
                if key in self._rates:
                    self._rates[key].labels(self._run).set(value)
                elif key not in _NOT_TERMS:
                    self._loss.labels(self._run, key).set(value)
        elif line.get("kind") == "epoch":
            for model, metrics in line["validation"].items():
                for metric, value in metrics.items():
                    if value is not None:
                        self._validation.labels(self._run, model, metric).set(value)


@contextmanager
def serve_metrics(run: str, port: int | None) -> Iterator[RunMetrics | None]:
    """Serve a run's gauges on the loopback address while the block lasts; nothing where `port` is None.

    Raises:
        UserError: the port is in use.
    """
    if port is None:
        yield None
        return
    from prometheus_client import start_http_server

    metrics = RunMetrics(run)
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=metrics.registry)
    except OSError as error:
        raise UserError(
            f"telemetry.port {port} cannot be used: {error.strerror}. Give another port, or null."
        ) from None
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

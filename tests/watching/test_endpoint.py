import socket
import threading
import time
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_server import free_port
from run_lines import line

from vadv_dist.errors import UserError
from vadv_dist.watching.endpoint import serve_metrics
from vadv_dist.watching.gauges import GAUGES, RunGauges


def scrape(port: int) -> dict[tuple[str, ...], float]:
    """Values by name and labels, as `label=value`, of labels that are not empty."""
    text = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return {
        (sample.name, *sorted(f"{k}={v}" for k, v in sample.labels.items() if v)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_scrape_returns_the_metrics_of_a_run(tmp_path) -> None:
    port = free_port()
    with serve_metrics("mine", port, trial="t7", disk=tmp_path) as metrics:
        assert metrics is not None
        metrics(line({"kind": "start", "step": 0, "epoch": 0, "steps": 40, "epochs": 2, "workers": 1, "time": 100.0}))
        rates = {
            "lr": 1e-3,
            "data_wait_s": 0.5,
            "line_s": 2.0,
            "mfu": 0.25,
            "gpu_memory_bytes": 1024,
            "waits_s": [0.5, 1.5],
            "compute_s": [0.5, 0.75],
            "node_bytes": [1000, 3000],
        }
        terms = {"total": 2.5, "video_to_text": 0.5}
        weights = {"weights": {"video_to_text": 0.125}}
        metrics(line({"kind": "step", "step": 7, "epoch": 0, **terms, **rates, **weights, "time": 103.0}))
        metrics(line({"kind": "checkpoint", "step": 7, "epoch": 0, "seconds": 0.75, "time": 103.5}))
        of_ranks = scrape(port)
        again = {"kind": "start", "step": 7, "epoch": 0, "steps": 40, "epochs": 2, "workers": 2, "cause": "preemption"}
        metrics(line({**again, "time": 103.5}))
        scores = {"student": {"mae": 0.7, "corr": None}}
        by_source = {"mosi": {"student": {"mae": 0.9}}}
        metrics(line({"kind": "epoch", "step": 9, "validation": scores, "sources": by_source, "time": 104}))
        found = scrape(port)

    def value(name: str, *labels: str) -> float:
        return found[(name, *sorted([*labels, "run=mine", "source=all", "trial=t7"]))]

    assert value("vadv_loss", "term=total") == 2.5
    assert value("vadv_loss", "term=video_to_text") == 0.5
    assert value("vadv_loss_weight", "term=video_to_text") == 0.125
    assert not any(name == "vadv_loss" and "term=weights" in labels for name, *labels in found)
    assert not any(name == "vadv_loss" and "term=lr" in labels for name, *labels in found)
    assert value("vadv_validation", "metric=mae", "model=student") == 0.7
    assert found[("vadv_validation", "metric=mae", "model=student", "run=mine", "source=mosi", "trial=t7")] == 0.9
    assert value("vadv_step") == 7
    assert value("vadv_planned_steps") == 40
    assert value("vadv_data_wait_ratio") == 0.25
    assert value("vadv_model_flop_utilisation") == 0.25
    assert value("vadv_gpu_memory_bytes") == 1024
    assert value("vadv_checkpoint_blocked_seconds") == 0.75
    common = ("run=mine", "source=all", "trial=t7")
    assert of_ranks[("vadv_rank_data_wait_seconds", "rank=1", *common)] == 1.5
    assert of_ranks[("vadv_rank_compute_seconds", "rank=1", *common)] == 0.75
    assert of_ranks[("vadv_rank_compute_ratio", "rank=1", *common)] == 1.5
    assert of_ranks[("vadv_node_read_bytes", "node=1", *common)] == 3000
    assert not any(name.startswith(("vadv_rank", "vadv_node")) for name, *_ in found)  # until the new ranks' first line
    assert value("vadv_restarts") == value("vadv_preemptions") == 1
    assert value("vadv_restarts_by_cause", "cause=preemption") == 1
    assert value("vadv_loss_not_finite") == 0
    assert value("vadv_goodput") == pytest.approx((2.0 - 0.5) / (104 - 100))
    assert value("vadv_last_line_timestamp_seconds") == 104
    assert 0 < value("vadv_disk_free_bytes") <= value("vadv_disk_size_bytes")
    assert not any("metric=corr" in labels for labels in found)
    assert all("run=mine" in labels for labels in found)
    with socket.socket() as probe:  # the series have ended: nobody listens there any more
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_value_that_is_no_longer_reported_is_removed() -> None:
    gauges = RunGauges("mine")
    gauges(line({"kind": "step", "step": 1, "epoch": 0, "total": 1.0, "grad_norm": 3.0, "time": 1.0}))
    assert "vadv_gradient_norm" in {sample.name for sample in gauges.samples()}
    gauges(line({"kind": "step", "step": 2, "epoch": 0, "total": 1.0, "grad_norm": None, "time": 2.0}))
    assert "vadv_gradient_norm" not in {sample.name for sample in gauges.samples()}


def test_regular_scraper_gets_the_last_values() -> None:
    port = free_port()
    last: list[float] = []
    with serve_metrics("mine", port) as metrics:
        assert metrics is not None
        scrape(port)
        scrape(port)
        late = threading.Timer(
            0.5, lambda: last.append(scrape(port)[("vadv_loss_not_finite", "run=mine", "source=all")])
        )
        late.start()
        metrics(line({"kind": "fault", "step": 3, "epoch": 0, "what": "the loss is not finite", "time": 1.0}))
        began = time.monotonic()
    assert 0.3 < time.monotonic() - began < 10
    late.join()
    assert last == [1.0]


def test_single_scrape_or_ctrl_c_does_not_delay_the_end() -> None:
    port = free_port()
    with serve_metrics("mine", port):
        scrape(port)
        began = time.monotonic()
    assert time.monotonic() - began < 3

    def stopped_by_hand() -> None:
        with serve_metrics("mine", port):
            scrape(port)
            scrape(port)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_by_hand()
    assert time.monotonic() - began < 6


def test_port_in_use_is_a_user_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used"), serve_metrics("mine", taken.getsockname()[1]):
            pass


def test_without_a_port_nothing_is_served() -> None:
    with serve_metrics("mine", None) as metrics:
        assert metrics is None


def test_every_gauge_has_a_help_text() -> None:
    assert all(name.startswith("vadv_") and gauge.text for name, gauge in GAUGES.items())

import socket
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vadv_dist.errors import UserError
from vadv_dist.telemetry import serve_metrics


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_scrape_reads_back_the_lines_of_a_run() -> None:
    port = free_port()
    with serve_metrics("mine", port) as metrics:
        assert metrics is not None
        metrics({"kind": "step", "step": 7, "epoch": 1, "total": 2.5, "video_to_text": 0.5, "lr": 1e-3, "time": 1.0})
        metrics({"kind": "epoch", "epoch": 1, "validation": {"student": {"mae": 0.7, "corr": None}}, "train": {}})
        text = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found[("vadv_loss", ("run", "mine"), ("term", "total"))] == 2.5
    assert found[("vadv_loss", ("run", "mine"), ("term", "video_to_text"))] == 0.5
    assert found[("vadv_step", ("run", "mine"))] == 7
    assert found[("vadv_validation", ("metric", "mae"), ("model", "student"), ("run", "mine"))] == 0.7
    with socket.socket() as probe:  # nobody listens there any more
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def test_a_port_in_use_is_a_mistake() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot be used"), serve_metrics("mine", taken.getsockname()[1]):
            pass


def test_without_a_port_nothing_is_served() -> None:
    with serve_metrics("mine", None) as metrics:
        assert metrics is None

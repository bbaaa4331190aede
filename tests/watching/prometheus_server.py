"""A Prometheus server with the rules of infra/prometheus and a scrape every second, for tests."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None, reason="prometheus and promtool are not installed (Debian: prometheus)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """Answers queries."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: object) -> dict:
        with urlopen(f"{self._url}{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of an instant query."""
        answer = self.get("/api/v1/query", query=expression)
        assert answer["status"] == "success", answer
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def wait_for(self, expression: str, *, absent: bool = False, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while bool(self.query(expression)) == absent:
            assert time.monotonic() < deadline, (expression, self.get("/api/v1/targets"))
            time.sleep(0.2)


@contextmanager
def prometheus(folder: Path, *, local: list[str] = (), ray: list[str] = ()) -> Iterator[Prometheus]:
    """Start Prometheus with the shipped configuration; only targets and intervals are others."""
    folder.mkdir()
    nodes = folder / "nodes.json"
    nodes.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": list(ray)}]))
    config = yaml.safe_load((INFRA / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(INFRA / "prometheus" / name) for name in config["rule_files"]]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    jobs["vadv-local"]["static_configs"] = [{"targets": list(local)}]
    jobs["vadv-ray"]["file_sd_configs"] = [{"files": [str(nodes)], "refresh_interval": "1s"}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    assert PROMETHEUS is not None
    command = [PROMETHEUS, f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        server = Prometheus(port)
        deadline = time.monotonic() + 120
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                    break
            except URLError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(20)
        process.communicate()

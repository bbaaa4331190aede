"""A run's gauges through Ray's metrics agent, read by the real Prometheus where it is there."""

import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_server import needs_prometheus, prometheus
from ray_nodes import Cluster

from vadv_dist.runs.folder import RunFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow]

AGENT = """
import json, os, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
[node] = [node for node in ray.nodes() if node["Alive"]]
print(json.dumps(f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"))
"""


@pytest.fixture(scope="module")
def agent(cluster: Cluster) -> str:
    """Address of the node's metrics agent."""
    done = subprocess.run(
        [sys.executable, "-c", AGENT], capture_output=True, text=True, env=cluster.environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_prometheus
def test_rank_0_is_scraped_through_ray_and_its_series_end(cluster, agent, write_config, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(write_config("far"))]
    command += ["--trainer.num_workers=2", "--trainer.cpus_per_worker=1", "--trainer.epochs=40"]
    with prometheus(tmp_path / "prometheus", ray=[agent]) as server:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=cluster.environment
        )
        server.wait_for('vadv_step{run="far"} > 0', seconds=300)
        server.wait_for('run:vadv_loss:max{run="far", source="all", term="total"}')
        _, said = process.communicate(timeout=400)
        assert process.returncode == 0, said
        log = [line.to_json() for line in RunFolder.open(tmp_path / "runs" / "far").metrics_log().lines()]
        losses = {line["step"]: line["total"] for line in log if line["kind"] == "step"}
        # Of two workers, one reports; the values are those of the log.
        [series] = server.get("/api/v1/query", query='vadv_loss{run="far", term="total"}[5m]')["data"]["result"]
        assert {float(value) for _, value in series["values"]} <= set(losses.values())
        assert series["metric"]["source"] == "all"
        assert "Component" not in series["metric"]
        [(_, workers)] = server.query('count(count by (WorkerId) (last_over_time(vadv_step{run="far"}[5m])))')
        assert workers == 1
        server.wait_for('{__name__=~"vadv_.+", run="far"}', absent=True)


def test_values_end_with_the_context_and_faults_are_reported(cluster, agent) -> None:
    script = """
import os, time, ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
def train():
    from vadv_dist.runs.records import FaultLine, StepLine
    from vadv_dist.watching.ray_metrics import ray_metrics

    rates = {"lr": 0.1, "grad_norm": 1.0, "samples_per_s": 1.0, "tokens_per_s": 1.0, "data_wait_s": 0.0, "line_s": 1.0}
    with ray_metrics("blown", trial="t1") as gauges:
        gauges(StepLine(step=5, epoch=0, time=time.time(), terms={"total": 3.0}, **rates))
        time.sleep(6)  # longer than Ray keeps a gauge that is not recorded again
        gauges(FaultLine(step=6, epoch=0, time=time.time(), what="the loss is not finite"))

ray.get(train.remote())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, env=cluster.environment
    )
    seen: list[dict[str, float]] = []
    times_s: list[float] = []
    while process.poll() is None:
        times_s.append(time.monotonic())
        text = urlopen(f"http://{agent}/metrics").read().decode()
        seen.append(
            {
                line.partition("{")[0]: float(line.rsplit(" ", 1)[1])
                for line in text.splitlines()
                if line.startswith("ray_vadv_") and 'run="blown"' in line and 'trial="t1"' in line
            }
        )
        time.sleep(0.3)
    assert process.returncode == 0, process.communicate()
    steps = [values for values in seen if "ray_vadv_step" in values]
    first, last = seen.index(steps[0]), len(seen) - 1 - seen[::-1].index(steps[-1])
    assert times_s[last] - times_s[first] >= 4  # the block sleeps for six seconds
    assert all("ray_vadv_step" in values for values in seen[first : last + 1])
    assert steps[0]["ray_vadv_loss_not_finite"] == 0
    assert any(values["ray_vadv_loss_not_finite"] == 1 for values in steps)
    deadline = time.monotonic() + 10
    while 'run="blown"' in urlopen(f"http://{agent}/metrics").read().decode():
        assert time.monotonic() < deadline
        time.sleep(0.3)

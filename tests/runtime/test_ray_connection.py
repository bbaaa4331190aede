"""Only a configured cluster is joined; if that fails, one message is printed at once."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_nodes import Cluster, free_port

from vadv_dist.doctor import examine
from vadv_dist.errors import MachineError, UserError
from vadv_dist.runtime import ray_connection
from vadv_dist.runtime.ray_connection import NamedCluster, connect, named_cluster

FIELD = "trainer.ray_address"
CONNECT = """
import ray
from vadv_dist.runtime.ray_connection import connect
print(connect(1), ray.get_runtime_context().gcs_address)
"""
WARNED = f"""{CONNECT}
import time
from ray._private.utils import push_error_to_driver
time.sleep(1)
push_error_to_driver(ray._private.worker.global_worker, "test", "a node has little memory")
time.sleep(3)
"""


def test_the_field_comes_before_the_variable_and_the_job() -> None:
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    variable = {"RAY_ADDRESS": "10.0.0.1:6379"}
    assert named_cluster(FIELD, "10.0.0.2:6379", {**job, **variable}) == NamedCluster("10.0.0.2:6379", FIELD)
    assert named_cluster(FIELD, None, {**job, **variable}) == NamedCluster("10.0.0.1:6379", "RAY_ADDRESS")
    assert named_cluster(FIELD, None, job) == NamedCluster("auto", "this Ray job")
    assert named_cluster(FIELD, "local", variable).address is None
    assert named_cluster(FIELD, None, {"RAY_ADDRESS": "local"}).address is None
    assert named_cluster(FIELD, None, {"RAY_ADDRESS": ""}).address is None
    assert named_cluster(FIELD, None, {}).address is None
    with pytest.raises(UserError, match=r"RAY_ADDRESS is http://head:8265, a job server.*`vadv submit`"):
        named_cluster(FIELD, None, {"RAY_ADDRESS": "http://head:8265"})


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "not-an-address", "127.0.0.1:99999999"])
def test_an_unreachable_cluster_is_reported_at_once(address: str, monkeypatch) -> None:
    named = address.format(free_port())
    monkeypatch.setenv("RAY_ADDRESS", named)
    begun = time.monotonic()
    with pytest.raises(MachineError, match=f"RAY_ADDRESS is {named}, where no Ray cluster answers"):
        connect(1)
    with pytest.raises(MachineError, match=r"trainer\.ray_address is 127\.0\.0\.1:1, where no Ray cluster answers"):
        connect(1, given="127.0.0.1:1")
    assert time.monotonic() - begun < 10


@pytest.fixture
def listener() -> Iterator[str]:
    """Address of a server that accepts connections and does not answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_server_that_is_not_a_cluster_is_reported(listener: str, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", listener)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(ray_connection, "_PROBE_S", 8.0)
    with pytest.raises(MachineError, match=f"RAY_ADDRESS is {listener}, where no Ray cluster answers"):
        connect(1)


def test_a_lost_cluster_is_reported_once(capsys) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        checks = iter([True] * 5)
        ray_connection.report_loss(address, lambda: next(checks, False), 0.0)
        assert capsys.readouterr().err == ""
    checks = iter([True] * 20)
    ray_connection.report_loss(address, lambda: next(checks, False), 0.0)
    said = capsys.readouterr().err
    assert said.count(f"the Ray cluster at {address} no longer answers") == 1
    assert "run the same command again" in said
    assert len(list(checks)) == 17  # reported at the third failure in a row


def test_a_missing_token_is_reported(listener: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", listener)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(MachineError, match="requires a token that is missing"):
        connect(1)


def test_doctor_checks_the_configured_cluster(monkeypatch) -> None:
    def ray_lines() -> list[tuple[str, str]]:
        return [(finding.level, finding.found) for finding in examine() if finding.what == "Ray"]

    monkeypatch.setenv("RAY_ADDRESS", "local")
    ((level, found),) = ray_lines()
    assert level == "ok"
    assert "starts its own cluster on this machine (RAY_ADDRESS is local)" in found
    monkeypatch.delenv("RAY_ADDRESS")
    ((level, found),) = ray_lines()
    assert (level, "neither RAY_ADDRESS nor trainer.ray_address names a cluster" in found) == ("ok", True)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    assert ray_lines()[0][0] == "fault"
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    assert ray_lines()[0][0] == "fault"


def run_connect(environment: dict[str, str], code: str = CONNECT) -> tuple[str, str, str]:
    """Whether a cluster was started, its address, and the output."""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    started, address = done.stdout.split()
    return started, address, done.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_a_cluster_on_this_machine_is_not_joined_unless_configured(cluster: Cluster) -> None:
    theirs = cluster.environment["RAY_ADDRESS"].rpartition(":")[2]
    environment = {name: value for name, value in cluster.environment.items() if name != "RAY_ADDRESS"}
    started, address, said = run_connect(environment)
    assert (started, address.rpartition(":")[2] != theirs) == ("True", True)
    assert "vadv: started a Ray cluster on this machine for this command (neither RAY_ADDRESS" in said

    # `auto` joins the cluster that `ray start` started on this machine.
    started, address, said = run_connect({**environment, "RAY_ADDRESS": "auto"}, WARNED)
    assert (started, address.rpartition(":")[2]) == ("False", theirs)
    assert f"vadv: joined the Ray cluster at {address} (RAY_ADDRESS)" in said
    # Warnings of the cluster are not part of a command's output; Ray alone prints them there.
    assert "vadv: Ray: a node has little memory" in said

    # A job's settings are for its own cluster: one that is started here does not know the job's working directory.
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}, "metadata": {}}
    alone = {**environment, "RAY_ADDRESS": "local", "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job)}
    assert run_connect(alone)[0] == "True"


@pytest.mark.slow
@pytest.mark.ray
def test_a_cluster_with_other_versions_is_refused_with_both(cluster: Cluster, monkeypatch) -> None:
    import ray
    from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
    from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
    from ray._raylet import GcsClient

    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, cluster.environment[name])
    store = GcsClient(address=cluster.environment["RAY_ADDRESS"])
    true = store.internal_kv_get(CLUSTER_METADATA_KEY, namespace=KV_NAMESPACE_CLUSTER)
    false = json.dumps({**json.loads(true), "ray_version": "2.9.1"}).encode()
    store.internal_kv_put(CLUSTER_METADATA_KEY, false, True, namespace=KV_NAMESPACE_CLUSTER)
    try:
        with pytest.raises(MachineError, match=rf"which runs Ray 2\.9\.1 .* this is Ray {ray.__version__}") as met:
            connect(1)
        assert "\n" not in str(met.value)
        assert os.environ["RAY_ADDRESS"] in str(met.value)
    finally:
        store.internal_kv_put(CLUSTER_METADATA_KEY, true, True, namespace=KV_NAMESPACE_CLUSTER)

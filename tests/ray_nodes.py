"""Ray nodes in separate processes with separate ports, so that several clusters can run on one machine."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

_RAY = Path(sys.executable).parent / "ray"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent() -> None:
    """In a new process: end it when the tests are killed, which could not stop it then (Linux only)."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def start_node(environment: Mapping[str, str], *options: str) -> subprocess.Popen[str]:
    """Start a node that lives as long as the returned process, and wait until it is up."""
    command = [str(_RAY), "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    # Drivers do not print the output of workers, which this process would read all the time.
    command.append("--include-log-monitor=false")
    # Ray's defaults for these two are fixed port numbers, the same for every node of a machine.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--metrics-export-port={free_port()}", *options]
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "--block" in line:
            return process
    raise AssertionError(said)


def kill_node(process: subprocess.Popen[str]) -> None:
    """Kill a node and everything that runs on it."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(30)
    if process.stdout is not None:
        process.stdout.close()


@dataclass(frozen=True)
class Cluster:
    """A head, and the environment variables with which a process finds it.

    Attributes:
        environment: the variables.
        head: its process.
        job_server: address of its job server, if it was started with one.
    """

    environment: dict[str, str]
    head: subprocess.Popen[str]
    job_server: str

    def processes(self, title: str) -> list[psutil.Process]:
        """Its workers whose process title contains these words."""
        return _workers(self.head, title)


def _workers(node: subprocess.Popen[str], title: str) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(node.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                shown = " ".join(process.cmdline())
                if shown.startswith("ray::") and title in shown:
                    found.append(process)
    return found


@contextlib.contextmanager
def start_cluster(
    cpus: int, *, job_server: bool = False, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Cluster]:
    """A cluster of one node for the duration of the block; `settings` are more variables of its processes."""
    scratch = tempfile.mkdtemp(prefix="vr", dir="/tmp")  # Ray's sockets need a short path
    port = free_port()
    environment = {
        **os.environ,
        **settings,
        "RAY_TMPDIR": scratch,
        "RAY_AUTH_MODE": "disabled",  # otherwise it depends on whether this machine's user has a token
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",  # otherwise other processes starve the workers
        "RAY_metrics_report_interval_ms": "1000",  # metrics within a second, for tests that read them
        "REPORTER_UPDATE_INTERVAL_MS": "60000",  # statistics of processes, which no test reads, take a tenth of a core
    }
    options = ["--head", f"--port={port}", f"--num-cpus={cpus}"]
    dashboard = free_port()
    options += [f"--include-dashboard={str(job_server).lower()}", f"--dashboard-port={dashboard}"]
    options += [f"--ray-client-server-port={free_port()}", "--object-store-memory=300000000"]
    # Workers of two clusters would try the same ports at the same time.
    options += ["--min-worker-port=0", "--max-worker-port=0"]
    head = start_node(environment, *options)
    try:
        yield Cluster({**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}, head, f"http://127.0.0.1:{dashboard}")
    finally:
        kill_node(head)
        shutil.rmtree(scratch, ignore_errors=True)


class Nodes:
    """A head, and nodes beside it that come and go."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.started: list[subprocess.Popen[str]] = []

    def add(self) -> None:
        """Start a node with two CPUs."""
        address = f"--address={self.cluster.environment['RAY_ADDRESS']}"
        options = ("--num-cpus=2", "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000")
        self.started.append(start_node(self.cluster.environment, address, *options))

    def drain(self, *, head: bool, deadline_s: int) -> "subprocess.Popen[str]":
        """Announce that the head or another node leaves, as KubeRay's preStop or a spot machine's notice does.

        Returns:
            the node's process.
        """
        code = (
            "import ray; ray.init(log_to_driver=False); "
            "print(*(n[key] for n in ray.nodes() if n['Alive'] and "
            f"('node:__internal_head__' in n['Resources']) == {head} for key in ('NodeID', 'RayletSocketName')))"
        )
        environment = self.cluster.environment
        found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        *_, node, socket = found.stdout.split()
        process = next(each for each in (self.cluster.head, *self.started) if _has_raylet(each, socket))
        options = ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
        options += ["--address", environment["RAY_ADDRESS"], f"--deadline-remaining-seconds={deadline_s}"]
        done = subprocess.run([str(_RAY), "drain-node", *options], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return process

    def remove(self, process: "subprocess.Popen[str]") -> None:
        """Take away the machine of a node, as a cloud does at the deadline; Ray may have ended its raylet before."""
        kill_node(process)

    def processes(self, title: str) -> list[psutil.Process]:
        """Workers of all nodes whose process title contains these words."""
        return [each for node in (self.cluster.head, *self.started) for each in _workers(node, title)]


def _has_raylet(process: "subprocess.Popen[str]", socket: str) -> bool:
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    return any(socket in argument for each in below for argument in each.cmdline())


@contextlib.contextmanager
def start_nodes(*, head_cpus: int, others: int, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Nodes]:
    """A head and some nodes beside it, for the duration of the block; see `start_cluster`."""
    with start_cluster(cpus=head_cpus, settings=settings) as cluster:
        nodes = Nodes(cluster)
        try:
            for _ in range(others):
                nodes.add()
            yield nodes
        finally:
            for node in nodes.started:
                kill_node(node)

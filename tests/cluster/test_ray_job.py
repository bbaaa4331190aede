"""The RayJob's entry point and its worker's preStop, run as KubeRay runs them, on three hosts of this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hosts import OUTSIDE, hosts, needs_hosts
from rendered import CLUSTER, cluster_specs, needs_kubectl, ray_job
from s3_server import BUCKET, CREDENTIALS, s3_server

SCRIPTS = CLUSTER / "kuberay" / "ray"
BIN = Path(sys.executable).parent


def run(command: list[str], environment: dict[str, str], seconds: float) -> str:
    """Run a command to its end; return its exit code and what it printed."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def submitter(server: str, job: str, entrypoint: str) -> list[str]:
    """The command of KubeRay's submitter, as BuildJobSubmitCommand puts it together."""
    status = f"ray job status --address {server} {job} >/dev/null 2>&1"
    submit = f"ray job submit --address {server} --no-wait --submission-id {job} -- {entrypoint}"
    follow = f"ray job logs --address {server} --follow {job}"
    return ["bash", "-c", f"if ! {status} ; then {submit} ; fi ; {follow}"]


@pytest.mark.ray
@pytest.mark.long
@needs_kubectl
@needs_hosts
def test_job_trains_from_s3_ends_at_a_mistake_and_drains_its_pods(write_config, tmp_path: Path) -> None:
    config = write_config("kuberay")
    entrypoint = ray_job()["spec"]["entrypoint"]
    for shipped, here in {
        "/app/jobs/configs/mosi-zero2.yaml": str(config),
        "/etc/vadv/": f"{SCRIPTS}/",
        "--trainer.use_gpu=true": "--trainer.use_gpu=false",
    }.items():
        assert shipped in entrypoint
        entrypoint = entrypoint.replace(shipped, here)
    [spec] = cluster_specs()[:1]
    cpus = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]

    with hosts(3) as (head, *workers), s3_server(OUTSIDE) as port:
        pod = {
            **os.environ,
            **CREDENTIALS,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "AWS_ENDPOINT_URL": f"http://{OUTSIDE}:{port}",
            "VADV_BUCKET": BUCKET,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        made = (
            "from vadv_dist.data.synth import make_dataset; make_dataset('s3://tests/data/mosi', num_clips=80, seed=3)"
        )
        copied = (
            "import s3fs; files = s3fs.S3FileSystem(); "
            "files.copy('tests/data/mosi/encoder', 'tests/models/roberta-large', recursive=True)"
        )
        assert run([sys.executable, "-c", f"{made}; {copied}"], pod, 120).startswith("0\n")

        start = ["ray", "start", "--block", "--dashboard-agent-listen-port=52365", "--metrics-export-port=8080"]
        parameters = [f"--{name}={value}" for name, value in spec["headGroupSpec"]["rayStartParams"].items()]
        log = tmp_path / "head.log"
        nodes = [
            head.start([*start, "--head", "--port=6379", f"--node-ip-address={head.address}", *parameters], pod, log)
        ]
        for worker in workers:
            command = [
                *start,
                f"--address={head.address}:6379",
                f"--num-cpus={cpus}",
                f"--node-ip-address={worker.address}",
            ]
            nodes.append(worker.start(["sh", "-c", f"sleep 8; exec {' '.join(command)}"], pod, tmp_path / "worker.log"))

        server = f"http://{head.address}:8265"
        outside = {name: value for name, value in pod.items() if name != "VADV_BUCKET"}  # the submitter lacks it
        deadline = time.monotonic() + 120
        while not run(["ray", "job", "list", "--address", server], outside, 60).startswith("0\n"):
            assert time.monotonic() < deadline, log.read_text()
        told = run(submitter(server, "trains", entrypoint), outside, 500)
        assert "succeeded" in run(["ray", "job", "status", "--address", server, "trains"], outside, 60), told
        assert f"s3://{BUCKET}/runs/kuberay" in told

        told = run(submitter(server, "mistaken", entrypoint + " --trainer.epochs=-1"), outside, 200)
        assert "trainer.epochs" in told
        assert "was stopped" in run(["ray", "job", "status", "--address", server, "mistaken"], outside, 60), told

        # The pod is deleted while nothing runs on it: the hook ends long before its deadline; Ray knows of it.
        at_worker = {**pod, "RAY_ADDRESS": f"{head.address}:6379"}
        started = time.monotonic()
        hook = workers[1].start(["sh", str(SCRIPTS / "drain.sh"), "90"], at_worker, tmp_path / "drain.log")
        assert hook.wait(80) == 0, (tmp_path / "drain.log").read_text()
        assert time.monotonic() - started < 75
        asked = (
            "from ray._raylet import GcsClient; from ray.autoscaler.v2.sdk import get_cluster_resource_state as state\n"
            "from ray.core.generated.autoscaler_pb2 import NodeStatus\n"
            f"nodes = state(GcsClient(address='{head.address}:6379')).node_states\n"
            "print({node.node_ip_address: NodeStatus.Name(node.status) for node in nodes})"
        )
        told = run([sys.executable, "-c", asked], pod, 60)
        alive = {
            worker.address
            for worker in workers
            for state in ("IDLE", "RUNNING")
            if f"'{worker.address}': '{state}'" in told
        }
        assert alive == {workers[0].address}, told
        assert nodes[1].poll() is None

        # The head's pod is deleted: its driver writes a checkpoint within the time that the hook gives it.
        longer = entrypoint.replace(
            "--trainer.num_workers=2", "--trainer.num_workers=1 --trainer.epochs=2000 --run.name=long"
        )
        with (tmp_path / "job.log").open("wb") as file:
            job = subprocess.Popen(submitter(server, "deleted", longer), env=outside, stdout=file)
        deadline = time.monotonic() + 200
        while "step" not in (tmp_path / "job.log").read_text().partition("engine:")[2]:
            assert time.monotonic() < deadline, (tmp_path / "job.log").read_text()
            time.sleep(0.5)
        hook = head.start(["sh", str(SCRIPTS / "drain.sh"), "60"], at_worker, tmp_path / "drain.log")
        while "checkpoint is complete" not in (tmp_path / "job.log").read_text():
            assert hook.poll() is None, (tmp_path / "drain.log").read_text() + (tmp_path / "job.log").read_text()
            time.sleep(0.5)
        job.kill()
        job.wait(30)

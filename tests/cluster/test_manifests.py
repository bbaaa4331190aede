"""The files in cluster/ are valid for the tools that read them, and secured."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
SCHEMAS = ROOT.parent / "shared" / "schemas"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
LAUNCHER = sorted((CLUSTER / "autoscaler").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def of_ray() -> list[dict[str, Any]]:
    found = [d for path in KUBERAY for d in documents(path)]
    return [document for document in found if document["apiVersion"].startswith("ray.io/")]


def clusters() -> Iterator[dict[str, Any]]:
    for document in of_ray():
        yield document["spec"] if document["kind"] == "RayCluster" else document["spec"]["rayClusterSpec"]


def pod_templates() -> Iterator[dict[str, Any]]:
    for spec in clusters():
        yield spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield group["template"]
    for document in of_ray():
        if "submitterPodTemplate" in document["spec"]:
            yield document["spec"]["submitterPodTemplate"]


def unknown_fields(value: object, schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Fields that an API server would drop silently."""
    if isinstance(value, dict) and "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        for name, item in value.items():
            if name not in schema["properties"]:
                yield f"{where}.{name}"
            else:
                yield from unknown_fields(item, schema["properties"][name], f"{where}.{name}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            yield from unknown_fields(item, schema["items"], where)


@pytest.mark.parametrize("document", of_ray(), ids=lambda d: f"{d['kind']}-{d['metadata']['name']}")
@pytest.mark.slow
def test_ray_manifests_match_the_operators_schemas(document: dict[str, Any]) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip("../shared/schemas is not at hand")
    path = SCHEMAS / f"ray.io_{document['kind'].lower()}s.yaml"
    definition = yaml.safe_load(path.read_text())
    version = document["apiVersion"].split("/")[1]
    schema = next(v["schema"] for v in definition["spec"]["versions"] if v["name"] == version)["openAPIV3Schema"]
    jsonschema.validate(document, schema)
    assert list(unknown_fields(document["spec"], schema["properties"]["spec"])) == []
    wrong = {**document, "spec": {**document["spec"], "rayVersion": 7, "entrypoint": 7}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_other_manifests_match_kubernetes_schemas() -> None:
    found = [d for path in KUBERAY for d in documents(path)]
    others = [d for d in found if not d["apiVersion"].startswith(("ray.io/", "kustomize"))]
    kinds = ["Namespace", "NetworkPolicy", "NetworkPolicy", "PersistentVolumeClaim", "ServiceAccount"]
    assert sorted(document["kind"] for document in others) == kinds
    for document in others:
        kubernetes_validate.validate(document, "1.33", strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**document, "unknown": {}}, "1.33", strict=True)


def test_pods_match_kubernetes_schema_and_the_restricted_standard() -> None:
    templates = list(pod_templates())
    assert len(templates) == 5
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        person = template["spec"]["securityContext"]
        assert person["runAsNonRoot"] is True
        assert person["runAsUser"] > 0
        assert person["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in template["spec"]["containers"]:
            lock = container["securityContext"]
            assert lock["allowPrivilegeEscalation"] is False
            assert lock["readOnlyRootFilesystem"] is True
            assert lock["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_every_cluster_requires_a_token_and_is_reachable_only_from_inside() -> None:
    for spec in clusters():
        assert spec["authOptions"] == {"mode": "token", "secretName": "vadv-ray-token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert spec["gcsFaultToleranceOptions"]["backend"] == "rocksdb"
        assert spec["enableInTreeAutoscaling"] is True
        images = {c["image"] for t in pod_templates() for c in t["spec"]["containers"]}
        assert all(re.fullmatch(r"\S+:[\w.]+-(cpu|gpu)", image) for image in images)


def test_the_cluster_specs_are_equal() -> None:
    first, second = clusters()
    assert first == second


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda p: p.stem)
def test_launcher_files_pass_rays_own_validation(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load(path.read_text())
    validate_config(prepare_config(yaml.safe_load(path.read_text())))
    with pytest.raises(Exception, match="surprise"):
        validate_config(prepare_config({**config, "surprise": 1}))
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_the_slurm_script_starts_head_workers_and_training(tmp_path: Path) -> None:
    script = CLUSTER / "slurm" / "vadv.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    for name, body in {
        "scontrol": 'printf "n1\\nn2\\nn3\\n"',
        "srun": "echo 10.0.0.1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "VADV_DRY_RUN": "1",
        "VADV_BIN": "/opt/venv/bin",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_JOB_ID": "4242",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "2",
    }
    command = ["bash", script, "jobs/configs/mosi-zero2.yaml", "--run.storage=/shared/runs"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    head, workers, training = (line for line in sorted(done.stdout.splitlines(), key=order) if "sleep" not in line)
    assert "ray start --head --node-ip-address=10.0.0.1 --port=24242 --dashboard-host=127.0.0.1" in head
    assert "-w n2,n3 /opt/venv/bin/ray start --address=10.0.0.1:24242 --num-cpus=8 --num-gpus=2" in workers
    assert training == (
        "/opt/venv/bin/vadv train --config jobs/configs/mosi-zero2.yaml --trainer.num_workers=6 --trainer.use_gpu=true "
        "--run.storage=/shared/runs"
    )
    assert not list(tmp_path.glob(".vadv-token.*"))
    none = subprocess.run(["bash", script], capture_output=True, text=True, env=environment)
    assert none.returncode == 2
    assert "no config given" in none.stderr


def test_the_slurm_script_lets_the_training_write_its_checkpoint(tmp_path: Path) -> None:
    programs = {
        "scontrol": "echo n1",
        "srun": "echo 10.0.0.1",
        "sleep": "exit 0",
        "vadv": "trap 'kill $!; /bin/sleep 1; touch saved; exit 143' TERM; /bin/sleep 60 & touch begun; wait",
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "VADV_BIN": str(tmp_path),
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_JOB_ID": "4242",
        "SLURM_CPUS_PER_TASK": "8",
    }
    job = subprocess.Popen(["bash", CLUSTER / "slurm" / "vadv.sbatch", "c.yaml"], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 143
    assert (tmp_path / "saved").exists()


def order(line: str) -> int:
    return 0 if "--head" in line else 1 if "ray start" in line else 2


def test_no_shipped_file_contains_a_secret() -> None:
    looks = re.compile(
        r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|(?i:secret_access_key\s*[:=]\s*\S{16,})|[0-9a-f]{64}"
    )
    for folder in ("cluster", "infra", "jobs", "tune_spaces"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in {".yaml", ".yml", ".sh", ".sbatch", ".tf", ".md", ".json", ".toml"}:
                assert not looks.search(path.read_text()), path

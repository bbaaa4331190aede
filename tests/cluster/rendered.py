"""The Kubernetes objects of cluster/kuberay as `kubectl kustomize` puts them together."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

Object = dict[str, Any]


@lru_cache
def rendered(part: str) -> tuple[Object, ...]:
    """The objects of a part: setup, job, cluster or monitoring."""
    command = ["kubectl", "kustomize", str(CLUSTER / "kuberay" / part)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(found for found in yaml.safe_load_all(done.stdout) if found)


def objects() -> list[Object]:
    """All objects of all parts."""
    return [found for part in ("setup", "job", "cluster", "monitoring") for found in rendered(part)]


def only(kind: str, part: str) -> Object:
    """The one object of a kind in a part."""
    [found] = [one for one in rendered(part) if one["kind"] == kind]
    return found


def ray_job() -> Object:
    return only("RayJob", "job")


def cluster_specs() -> list[Object]:
    """Specification of the job's cluster and of the permanent one."""
    return [ray_job()["spec"]["rayClusterSpec"], only("RayCluster", "cluster")["spec"]]


def pod_templates() -> Iterator[Object]:
    """Templates of all pods."""
    for spec in cluster_specs():
        yield spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield group["template"]
    yield ray_job()["spec"]["submitterPodTemplate"]

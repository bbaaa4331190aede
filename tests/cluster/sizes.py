"""What pods can use of a machine: quantities, and what kubelet and daemons take."""

from pathlib import Path
from typing import Any

import yaml

_UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
MACHINES: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[2] / "cluster" / "machines.yaml").read_text()
)
RESOURCES = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu")

# CPU and memory that daemons request on every node of EKS: vpc-cni with network policies (aws-node), kube-proxy. The
# pod identity agent and NVIDIA's device plugin request nothing.
_DAEMONS = {"cpu": 0.050 + 0.100, "memory": 0.0}


def quantity(text: str | float) -> float:
    """A Kubernetes quantity as a number: "250m" is 0.25, "1Gi" 2^30."""
    text = str(text)
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def requests(template: dict[str, Any]) -> dict[str, float]:
    """What a pod requests, all containers together."""
    total = dict.fromkeys(RESOURCES, 0.0)
    for container in template["spec"]["containers"]:
        for name, amount in container["resources"]["requests"].items():
            total[name] += quantity(amount)
    return total


def allocatable(name: str, disk: str = "20Gi") -> dict[str, float]:
    """What is left for pods on a new node of EKS (AL2023) that Karpenter starts.

    Reserved CPU: 6 % of the first core, 1 % of the second, 0.5 % of the next two, 0.25 % of the others. Reserved
    memory: 255 MiB and 11 MiB for each possible pod; 100 MiB for evictions (awslabs/amazon-eks-ami, nodeadm). Before
    it has seen a type, Karpenter assumes 7.5 % less memory than advertised (vmMemoryOverheadPercent) and starts no node
    for a pod that would need it. A tenth of the disk is kept free (nodefs eviction), 1 GiB is reserved.
    """
    machine = MACHINES[name]
    shares = [0.06, 0.01, 0.005, 0.005] + [0.0025] * max(0, machine["cpu"] - 4)
    return {
        "cpu": machine["cpu"] - sum(shares[: machine["cpu"]]) - _DAEMONS["cpu"],
        "memory": machine["memory_gib"] * 2**30 * (1 - 0.075)
        - (255 + 11 * machine["pods"] + 100) * 2**20
        - _DAEMONS["memory"],
        "ephemeral-storage": quantity(disk) * 0.9 - 2**30,
        "nvidia.com/gpu": float(machine.get("gpu", 0)),
    }


def lacking(wanted: dict[str, float], there: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Resources of which more is wanted than there is: (wanted, there)."""
    return {name: (amount, there[name]) for name, amount in wanted.items() if amount > there[name]}

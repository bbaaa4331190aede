"""Pods fit their machines, jobs their queue, queues their machines' limits: refuses what could not be scheduled."""

import re
from collections.abc import Iterator

import pytest
import yaml
from rendered import CLUSTER, ROOT, Object, cluster_specs, needs_kubectl, only, ray_job, rendered
from sizes import MACHINES, RESOURCES, allocatable, lacking, quantity, requests

pytestmark = needs_kubectl


def pools() -> dict[str, Object]:
    """Node pools by the label that pods select."""
    found = [one for one in rendered("setup") if one["kind"] == "NodePool"]
    return {pool["spec"]["template"]["metadata"]["labels"]["vadv.dev/pool"]: pool for pool in found}


def types(pool: Object) -> list[str]:
    wanted = {one["key"]: one["values"] for one in pool["spec"]["template"]["spec"]["requirements"]}
    return list(wanted["node.kubernetes.io/instance-type"])


def disk() -> str:
    [mapping] = only("EC2NodeClass", "setup")["spec"]["blockDeviceMappings"]
    return str(mapping["ebs"]["volumeSize"])


def pods() -> Iterator[tuple[Object, int]]:
    """Templates of the job's pods, and how many of each."""
    spec = ray_job()["spec"]
    yield spec["rayClusterSpec"]["headGroupSpec"]["template"], 1
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        yield group["template"], group["replicas"]
    yield spec["submitterPodTemplate"], 1


def all_templates() -> list[Object]:
    groups = [group for spec in cluster_specs() for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    return [group["template"] for group in groups] + [ray_job()["spec"]["submitterPodTemplate"]]


def test_allocatable_of_a_known_node() -> None:
    """g5.2xlarge on EKS with 58 pods reports 7,910m CPU; 8 cores reserve 90m (AWS's formula, by hand)."""
    left = allocatable("g5.2xlarge")
    assert left["cpu"] == pytest.approx(7.910 - 0.150)
    assert left["memory"] / 2**20 == pytest.approx(32768 * 0.925 - 255 - 638 - 100)
    assert lacking({"cpu": 8.0}, left) == {"cpu": (8.0, left["cpu"])}


def test_every_pod_fits_every_machine_of_its_pool() -> None:
    for template in all_templates():
        pool = pools()[template["spec"]["nodeSelector"]["vadv.dev/pool"]]
        for name in types(pool):
            assert not lacking(requests(template), allocatable(name, disk())), name
        tolerated = {one["key"] for one in template["spec"].get("tolerations", [])}
        assert {taint["key"] for taint in pool["spec"]["template"]["spec"].get("taints", [])} <= tolerated


def test_the_permanent_clusters_head_fits_with_its_autoscaler() -> None:
    """KubeRay adds it to the head's pod."""
    spec = only("RayCluster", "cluster")["spec"]
    wanted = requests(spec["headGroupSpec"]["template"])
    for name, amount in spec["autoscalerOptions"]["resources"]["requests"].items():
        wanted[name] += quantity(amount)
    for name in types(pools()["cpu"]):
        assert not lacking(wanted, allocatable(name, disk())), name


def test_an_oversized_pod_is_refused() -> None:
    """8 CPUs and 48 GiB on machines of 8 CPUs and 32 GiB."""
    for name in types(pools()["gpu"]):
        assert lacking({"cpu": 8.0}, allocatable(name, disk()))
    assert lacking({"memory": quantity("48Gi")}, allocatable("g6.2xlarge", disk()))
    assert lacking(
        {"memory": quantity("30Gi")}, allocatable("g6.2xlarge", disk())
    )  # less than advertised, yet too much


def test_memory_and_disk_volumes_fit_their_pod() -> None:
    for template in all_templates():
        wanted = requests(template)
        sizes = {volume["name"]: volume["emptyDir"] for volume in template["spec"]["volumes"] if "emptyDir" in volume}
        in_memory = sum(quantity(one["sizeLimit"]) for one in sizes.values() if one.get("medium") == "Memory")
        on_disk = sum(quantity(one["sizeLimit"]) for one in sizes.values() if one.get("medium") != "Memory")
        assert in_memory < wanted["memory"]
        assert on_disk < wanted["ephemeral-storage"]
        for container in template["spec"]["containers"]:
            limits = container["resources"]["limits"]
            assert limits["memory"] == container["resources"]["requests"]["memory"] or "submitter" in container["name"]


def test_the_object_store_of_a_worker_fits_its_shared_memory() -> None:
    """Ray takes 30 % of the container's memory for it."""
    [group] = ray_job()["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    volumes = {one["name"]: one.get("emptyDir", {}) for one in group["template"]["spec"]["volumes"]}
    assert 0.3 * requests(group["template"])["memory"] <= quantity(volumes["shared-memory"]["sizeLimit"])


def quotas() -> dict[str, dict[str, float]]:
    """Quotas of the queue by flavor."""
    [resources] = only("ClusterQueue", "setup")["spec"]["resourceGroups"]
    assert set(resources["coveredResources"]) == set(RESOURCES)
    return {
        flavor["name"]: {one["name"]: quantity(one["nominalQuota"]) for one in flavor["resources"]}
        for flavor in resources["flavors"]
    }


def test_the_job_is_admitted_by_its_queue() -> None:
    job = ray_job()
    queue = only("LocalQueue", "setup")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queue["metadata"]["name"]
    assert job["metadata"]["namespace"] == queue["metadata"]["namespace"]
    assert queue["spec"]["clusterQueue"] == only("ClusterQueue", "setup")["metadata"]["name"]
    flavors = {
        one["metadata"]["name"]: one["spec"]["nodeLabels"]
        for one in rendered("setup")
        if one["kind"] == "ResourceFlavor"
    }
    needed = {name: dict.fromkeys(RESOURCES, 0.0) for name in flavors}
    for template, count in pods():
        [flavor] = [
            name for name, labels in flavors.items() if labels.items() <= template["spec"]["nodeSelector"].items()
        ]
        for name, amount in requests(template).items():
            needed[flavor][name] += count * amount
    for flavor, wanted in needed.items():
        assert not lacking(wanted, quotas()[flavor]), flavor
    # Kueue refuses jobs with these: its webhook for RayJobs.
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert not job["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling")
    assert not job["spec"].get("clusterSelector")


def test_quotas_are_what_the_pools_can_hold() -> None:
    """As many pods as the pools' limits have machines, not more: an admitted job would wait for a machine forever."""
    flavors = {
        one["metadata"]["name"]: one["spec"]["nodeLabels"]["vadv.dev/pool"]
        for one in rendered("setup")
        if one["kind"] == "ResourceFlavor"
    }
    for flavor, pool_name in flavors.items():
        pool = pools()[pool_name]
        [(limited, limit)] = pool["spec"]["limits"].items()
        smallest = {name: min(allocatable(one, disk())[name] for one in types(pool)) for name in RESOURCES}
        per_node = {
            "cpu": max(MACHINES[one]["cpu"] for one in types(pool)),
            "nvidia.com/gpu": max(MACHINES[one].get("gpu", 0) for one in types(pool)),
        }
        nodes = quantity(limit) // per_node[limited]
        assert not lacking(quotas()[flavor], {name: nodes * amount for name, amount in smallest.items()}), flavor


def test_the_system_nodes_hold_the_controllers() -> None:
    """One of the two nodes holds all of them, except for Karpenter's second replica, which wants a node of its own."""
    text = (ROOT / "infra" / "terraform" / "platform.tf").read_text()
    [name] = re.findall(r'system_instance_type = "(\S+)"', text)
    asked = re.findall(r'(\w+)\s+= \{ cpu = "(\w+)", memory = "(\w+)" \}', text)
    assert {one[0] for one in asked} == {"karpenter", "kuberay", "kueue"}
    coredns = 2 * 0.1, 2 * quantity("70Mi")
    wanted = {
        "cpu": sum(quantity(one[1]) for one in asked) + coredns[0],
        "memory": sum(quantity(one[2]) for one in asked) + coredns[1],
    }
    assert not lacking(wanted, allocatable(name))


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_the_launchers_resources_are_those_of_its_machines(provider: str) -> None:
    nodes = yaml.safe_load((CLUSTER / "autoscaler" / f"{provider}.yaml").read_text())["available_node_types"]
    for name, node in nodes.items():
        config = node["node_config"]
        machine = MACHINES[config.get("InstanceType") or config.get("machineType")]
        told = node["resources"]
        if name == "head":
            assert told == {"CPU": 0}
        else:
            assert told == {"CPU": machine["cpu"], "GPU": machine["gpu"]}


def test_machines_are_used() -> None:
    shipped = "".join(
        path.read_text()
        for folder in ("cluster", "infra/terraform")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".yaml", ".tf"} and path.name != "machines.yaml"
    )
    assert all(name in shipped for name in MACHINES)

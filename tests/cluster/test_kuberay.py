"""The Kubernetes objects are valid for the operators that read them, locked down, and consistent with one another."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from rendered import (
    CLUSTER,
    ROOT,
    Object,
    cluster_specs,
    needs_kubectl,
    objects,
    only,
    pod_templates,
    ray_job,
    rendered,
)

pytestmark = needs_kubectl
SCHEMAS = ROOT.parent / "shared" / "schemas"
TERRAFORM = ROOT / "infra" / "terraform"
VERSION = "1.35"  # of Kubernetes, as in infra/terraform

# Fields of the operators' objects that are used here. Sources: Kueue 0.18, apis/kueue/v1beta2/*_types.go; Karpenter's
# schemas of v1, with which the shipped objects were validated.
FIELDS: dict[str, dict[str, Any]] = {
    "ResourceFlavor": {"nodeLabels": "*", "nodeTaints": "*"},
    "ClusterQueue": {
        "namespaceSelector": "*",
        "queueingStrategy": "",
        "resourceGroups": {
            "coveredResources": "*",
            "flavors": {"name": "", "resources": {"name": "", "nominalQuota": ""}},
        },
    },
    "LocalQueue": {"clusterQueue": ""},
    "NodePool": {
        "limits": "*",
        "disruption": {"consolidationPolicy": "", "consolidateAfter": "", "budgets": {"nodes": "", "reasons": "*"}},
        "template": {
            "metadata": {"labels": "*"},
            "spec": {
                "expireAfter": "",
                "nodeClassRef": {"group": "", "kind": "", "name": ""},
                "taints": {"key": "", "value": "", "effect": ""},
                "requirements": {"key": "", "operator": "", "values": "*"},
            },
        },
    },
    "EC2NodeClass": {
        "amiSelectorTerms": {"alias": ""},
        "role": "",
        "subnetSelectorTerms": {"tags": "*"},
        "securityGroupSelectorTerms": {"tags": "*"},
        "metadataOptions": {"httpTokens": "", "httpPutResponseHopLimit": ""},
        "blockDeviceMappings": {
            "deviceName": "",
            "ebs": {"volumeSize": "", "volumeType": "", "encrypted": "", "deleteOnTermination": ""},
        },
    },
}


def _object(required: list[str], **properties: object) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


# Of PodMonitor's schema (Prometheus Operator, monitoring.coreos.com/v1), what is used here.
_TEXT = {"type": "string"}
_RELABELING = _object(
    [],
    sourceLabels={"type": "array", "items": _TEXT},
    targetLabel=_TEXT,
    regex=_TEXT,
    replacement=_TEXT,
    action={"enum": ["replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep"]},
)
_REQUIREMENT = _object(["key", "operator"], key=_TEXT, operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]})
_ENDPOINT = _object(
    [], port=_TEXT, path=_TEXT, interval=_TEXT, metricRelabelings={"type": "array", "items": _RELABELING}
)
POD_MONITOR = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PodMonitor"},
    metadata={"type": "object"},
    spec=_object(
        ["podMetricsEndpoints", "selector"],
        selector=_object([], matchExpressions={"type": "array", "items": _REQUIREMENT}),
        podMetricsEndpoints={"type": "array", "items": _ENDPOINT},
    ),
)


def foreign_fields(value: object, known: Any, where: str = "") -> Iterator[str]:
    """Fields that are not in a tree of known ones."""
    for item in value if isinstance(value, list) else [value]:
        if known == "*" or not isinstance(item, dict):
            continue
        for name, inner in item.items():
            if name not in known:
                yield f"{where}.{name}"
            else:
                yield from foreign_fields(inner, known[name], f"{where}.{name}")


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


@pytest.mark.parametrize("kind", ["RayJob", "RayCluster"])
@pytest.mark.slow
def test_ray_objects_match_the_operators_schemas(kind: str) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip("../shared/schemas is not at hand")
    document = only(kind, {"RayJob": "job", "RayCluster": "cluster"}[kind])
    definition = yaml.load((SCHEMAS / f"ray.io_{kind.lower()}s.yaml").read_text(), yaml.CSafeLoader)
    schema = next(v["schema"] for v in definition["spec"]["versions"] if v["name"] == "v1")["openAPIV3Schema"]
    jsonschema.validate(document, schema)
    assert list(unknown_fields(document["spec"], schema["properties"]["spec"])) == []
    wrong = {**document, "spec": {**document["spec"], "rayVersion": 7, "entrypoint": 7}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_other_objects_match_kubernetes_schemas() -> None:
    others = [
        one for one in objects() if not one["apiVersion"].startswith(("ray.io/", "kueue", "karpenter", "monitoring"))
    ]
    kinds = {"ConfigMap", "Namespace", "NetworkPolicy", "PodDisruptionBudget", "PriorityClass", "ServiceAccount"}
    assert {document["kind"] for document in others} == kinds
    for document in others:
        kubernetes_validate.validate(document, VERSION, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**document, "unknown": {}}, VERSION, strict=True)


def test_objects_of_kueue_and_karpenter_use_known_fields() -> None:
    found = [one for one in objects() if one["apiVersion"].startswith(("kueue", "karpenter"))]
    assert {one["kind"] for one in found} == set(FIELDS)
    for one in found:
        assert list(foreign_fields(one["spec"], FIELDS[one["kind"]])) == []
    [group] = only("ClusterQueue", "setup")["spec"]["resourceGroups"]
    for flavor in group["flavors"]:  # Kueue wants the order of coveredResources
        assert [one["name"] for one in flavor["resources"]] == group["coveredResources"]
    assert list(foreign_fields({"ebs": {"volumeSise": 1}}, {"ebs": {"volumeSize": ""}})) == [".ebs.volumeSise"]


def test_pods_are_scraped_as_prometheus_would_on_one_machine() -> None:
    monitor = only("PodMonitor", "monitoring")
    jsonschema.validate(monitor, POD_MONITOR)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**monitor, "spec": {**monitor["spec"], "podMetricsEndpoint": []}}, POD_MONITOR)
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    for template in list(pod_templates())[:-1]:  # all but the submitter, which is no node of Ray
        [ports] = [one["ports"] for one in template["spec"]["containers"] if one["name"].startswith("ray-")]
        assert {"name": endpoint["port"], "containerPort": 8080} in ports
    policies = [one for one in rendered("setup") if one["kind"] == "NetworkPolicy"]
    for policy in policies:
        [scraped] = [rule for rule in policy["spec"]["ingress"] if "monitoring" in json.dumps(rule)]
        assert scraped["ports"] == [{"port": 8080, "protocol": "TCP"}]
    config = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text())
    [ray] = [job for job in config["scrape_configs"] if job["job_name"] == "vadv-ray"]
    names = {"source_labels": "sourceLabels", "target_label": "targetLabel"}
    expected = [{names.get(key, key): value for key, value in rule.items()} for rule in ray["metric_relabel_configs"]]
    assert endpoint["metricRelabelings"] == expected


def test_the_rules_become_objects_of_the_operator() -> None:
    folder = ROOT / "infra" / "prometheus"
    done = subprocess.run(["sh", folder / "kubernetes_rules.sh"], capture_output=True, text=True, check=True, cwd="/")
    objects = list(yaml.safe_load_all(done.stdout))
    assert [one["kind"] for one in objects] == ["PrometheusRule"] * 2
    for part, one in zip(("recording", "alerts"), objects, strict=True):
        assert one["metadata"] == {"name": f"vadv-{part}"}
        assert one["spec"] == yaml.safe_load((folder / f"{part}.yml").read_text())


def test_pods_match_kubernetes_schema_and_the_restricted_standard() -> None:
    templates = list(pod_templates())
    assert len(templates) == 5
    for template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)
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
    for spec in cluster_specs():
        assert spec["authOptions"] == {"mode": "token", "secretName": "vadv-ray-token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    policies = [one["spec"] for one in rendered("setup") if one["kind"] == "NetworkPolicy"]
    assert {one["podSelector"]["matchLabels"]["ray.io/node-type"] for one in policies} == {"head", "worker"}
    submitter = ray_job()["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    assert submitter.items() <= {"vadv.dev/submitter": "true"}.items()
    assert "vadv.dev/submitter" in json.dumps(policies)
    # Policies name the operator's namespace; it is Terraform that installs it, and lets policies have an effect.
    installed = (TERRAFORM / "platform.tf").read_text()
    assert 'namespace        = "kuberay-operator"' in installed
    assert "kuberay-operator" in json.dumps(policies)
    assert 'enableNetworkPolicy = "true"' in (TERRAFORM / "main.tf").read_text()


def test_the_job_has_the_clusters_specification_under_its_own_name() -> None:
    job, permanent = (json.loads(json.dumps(spec)) for spec in cluster_specs())
    name = ray_job()["metadata"]["name"]
    assert json.dumps(job).replace(f'"{name}"', '"vadv"').count('"vadv.dev/run": "vadv"') == 4
    for spec in (job, permanent):
        spec.pop("enableInTreeAutoscaling", None)
        spec.pop("autoscalerOptions", None)
        spec["headGroupSpec"]["template"]["spec"].pop("automountServiceAccountToken")
        [group] = spec["workerGroupSpecs"]
        for number in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(number)
    assert json.loads(json.dumps(job).replace(f'"{name}"', '"vadv"')) == permanent


def test_the_job_asks_for_its_workers_and_reads_everything_from_the_bucket() -> None:
    job = ray_job()["spec"]
    [group] = job["rayClusterSpec"]["workerGroupSpecs"]
    assert f"--trainer.num_workers={group['replicas']} " in job["entrypoint"]
    assert job["entrypoint"].count("s3://$VADV_BUCKET/") == 3
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    [settings] = [one["data"] for one in rendered("job") if one["metadata"]["name"] == "vadv-account"]
    assert set(settings) == {"VADV_BUCKET", "AWS_REGION"}
    assert (ROOT / "jobs" / "configs" / "mosi-zero2.yaml").exists()


def test_voluntary_evictions_spare_the_head_of_a_job() -> None:
    budget = only("PodDisruptionBudget", "job")["spec"]
    head = ray_job()["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"] == {**head, "ray.io/node-type": "head"}
    assert budget["minAvailable"] == 1  # an integer is all that Kubernetes allows for pods of a custom resource


def test_a_deleted_pod_drains_before_it_is_killed() -> None:
    """Notice of a spot machine (120 s) > grace period > time for draining, each with some to spare."""
    for spec in cluster_specs():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
            assert command[:2] == ["sh", "/etc/vadv/drain.sh"]
            assert 120 > pod["terminationGracePeriodSeconds"] >= int(command[2]) + 15
            # Karpenter never evicts a pod with this, also not from a spot machine that is reclaimed.
            marks = group["template"]["metadata"].get("annotations", {})
            assert ("karpenter.sh/do-not-disrupt" in marks) == (group is spec["headGroupSpec"])
            mounted = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert volumes[mounted["/etc/vadv"]]["configMap"]["name"] == "vadv-scripts"
    for part in ("job", "cluster"):
        [scripts] = [one["data"] for one in rendered(part) if one["metadata"]["name"] == "vadv-scripts"]
        assert set(scripts) == {"run.sh", "drain.sh"}


def test_karpenters_nodes_find_the_roles_and_networks_of_terraform() -> None:
    node_class = only("EC2NodeClass", "setup")["spec"]
    text = "".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    assert 'default     = "vadv"' in text
    assert 'node_iam_role_name            = "${var.name}-node"' in text
    assert node_class["role"] == "vadv-node"
    tags = {"karpenter.sh/discovery": "vadv"}
    assert node_class["subnetSelectorTerms"] == node_class["securityGroupSelectorTerms"] == [{"tags": tags}]
    assert text.count('"karpenter.sh/discovery" = var.name') == 2  # subnets and the nodes' security group
    assert f'kubernetes_version                       = "{VERSION}"' in text
    account = only("ServiceAccount", "setup")["metadata"]
    assert f"system:serviceaccount:{account['namespace']}:{account['name']}" in text
    assert "eks.amazonaws.com/role-arn" in account["annotations"]


def test_a_machine_with_workers_is_not_replaced_by_one_with_a_newer_image() -> None:
    """Workers may be evicted, and al2023@latest changes: without a budget, each new image would evict them."""
    [pool] = [
        each for each in rendered("setup") if each["kind"] == "NodePool" and each["metadata"]["name"] == "vadv-gpu"
    ]
    budgets = pool["spec"]["disruption"]["budgets"]
    assert [budget["nodes"] for budget in budgets if "Drifted" in budget["reasons"]] == ["0"]
    assert pool["spec"]["disruption"]["consolidationPolicy"] == "WhenEmpty"


def test_kueue_knows_the_taints_of_karpenters_nodes() -> None:
    """A flavor without its nodes' taints is given to pods that its nodes then refuse."""
    setup = rendered("setup")
    pools = {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in setup if each["kind"] == "NodePool"}
    flavors = {each["metadata"]["name"]: each["spec"] for each in setup if each["kind"] == "ResourceFlavor"}
    assert flavors.keys() == pools.keys()
    for name, flavor in flavors.items():
        assert flavor["nodeTaints"] == pools[name]["taints"]


def test_terraform_writes_the_account_file() -> None:
    """The template with this file's own values is this file."""
    values = {
        "registry": "registry.example/vadv",
        "image_tag": "0.2.0",
        "bucket": "YOUR-BUCKET",
        "region": "eu-central-1",
        "role": "arn:aws:iam::000000000000:role/vadv-worker",
    }
    text = (TERRAFORM / "account.yaml.tftpl").read_text()
    for name, value in values.items():
        assert text.count("${" + name + "}") >= 1
        text = text.replace("${" + name + "}", value)
    assert text == (CLUSTER / "kuberay" / "account" / "kustomization.yaml").read_text()


def run_script(tmp_path: Path, codes: list[int]) -> tuple[int, int]:
    """Exit code of run.sh, and the number of times that it ran a program which ends with these codes in turn."""
    (tmp_path / "codes").write_text("\n".join(map(str, codes)))
    (tmp_path / "vadv").write_text('#!/bin/sh\necho x >> runs\ncode=$(head -n1 codes)\nsed -i 1d codes\nexit "$code"\n')
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    for name in ("vadv", "sleep"):
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = CLUSTER / "kuberay" / "ray" / "run.sh"
    done = subprocess.run(["sh", script, "train"], cwd=tmp_path, env=environment, capture_output=True)
    return done.returncode, len((tmp_path / "runs").read_text().split())


@pytest.mark.parametrize(
    ("codes", "ends", "runs"), [([0], 0, 1), ([75, 75, 0], 0, 3), ([75, 1], 1, 2), ([143], 143, 1), ([2, 0], 2, 1)]
)
def test_the_entry_point_goes_on_after_an_interruption_only(tmp_path, codes: list[int], ends: int, runs: int) -> None:
    assert run_script(tmp_path, codes) == (ends, runs)


def test_no_object_is_forgotten() -> None:
    """Each file is part of a kustomization."""
    listed: set[Path] = set()
    for path in (CLUSTER / "kuberay").rglob("kustomization.yaml"):
        listed.add(path)
        content: Object = yaml.safe_load(path.read_text())
        names = content.get("resources", []) + [
            name for generator in content.get("configMapGenerator", []) for name in generator.get("files", [])
        ]
        listed |= {(path.parent / name).resolve() for name in names}
    assert {path for path in (CLUSTER / "kuberay").rglob("*") if path.is_file()} <= listed

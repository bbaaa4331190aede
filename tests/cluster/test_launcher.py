"""Ray accepts the launcher's files, and sets up AWS with them without adding rights or open ports."""

import re
import shlex
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from rendered import CLUSTER, ROOT

from vadv_dist.config import Config, load_config
from vadv_dist.submission.job import Submission, prepared_arguments

LAUNCHER = sorted((CLUSTER / "autoscaler").glob("*.yaml"))


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
    # The token lies where the image's user looks for it.
    [user] = re.findall(r"useradd .*--create-home (\w+)", (ROOT / "infra" / "docker" / "Dockerfile").read_text())
    assert list(config["file_mounts"]) == [f"/home/{user}/.ray/auth_token"]


@pytest.mark.parametrize("path", LAUNCHER, ids=lambda p: p.stem)
def test_machines_log_in_to_the_registry_before_they_pull(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    [login] = config["initialization_commands"]
    hosts = {config["docker"][f"{kind}_image"].partition("/")[0] for kind in ("head", "worker")}
    assert {login.split()[-1]} == hosts


def commands(text: str) -> list[list[str]]:
    """The `vadv submit` commands of a document or of comments, as words."""
    plain = re.sub(r"\\\n\s*", " ", re.sub(r"^# ?", "", text, flags=re.MULTILINE))
    return [shlex.split(line) for line in re.findall(r"^ *(vadv submit .+)$", plain, re.MULTILINE)]


@pytest.mark.parametrize("path", [*LAUNCHER, ROOT / "docs" / "cluster.md"], ids=lambda p: p.stem)
def test_documented_submissions_to_clusters_that_grow_are_complete(path: Path, monkeypatch) -> None:
    """Locations that machines reach, workers, patience until machines have started, and a token before all."""
    monkeypatch.chdir(ROOT)
    found = [words for words in commands(path.read_text()) if "http://127.0.0.1:8265" in words and "train" in words]
    assert found
    for words in found:
        given = words[words.index("--address") + 2 :]
        arguments, _ = prepared_arguments(Submission("train", tuple(given), working_dir=ROOT), "http://10.1.2.3:8265")
        config = load_config(given[1], [each for each in arguments[2:] if each.startswith("--")])
        places = [config.run.storage, *(source.uri for source in config.data.sources)]
        assert [place for place in places if not place.startswith("s3://")] == []
        assert config.trainer.wait_for_room_s >= 600
        assert config.trainer.use_gpu is True
    assert path.read_text().index("auth_token") < path.read_text().index("vadv submit")
    assert "RAY_AUTH_MODE=token" in path.read_text()


def test_a_head_waits_for_the_checkpoint_of_a_job_that_is_stopped() -> None:
    """Ray kills a stopped job's driver after RAY_JOB_STOP_WAIT_TIME_S, 3 s by default."""
    starts = [*LAUNCHER, CLUSTER / "local" / "start.sh", CLUSTER / "kuberay" / "ray" / "raycluster.yaml"]
    for path in starts:
        [wait_s] = re.findall(r'RAY_JOB_STOP_WAIT_TIME_S(?:=|, value: ")(\d+)', path.read_text())
        assert float(wait_s) >= Config().trainer.grace_s + 5, path


@pytest.mark.slow
def test_ray_sets_up_aws_with_the_given_roles_and_network_only(tmp_path: Path, monkeypatch) -> None:
    """Ray's bootstrap against a simulated AWS: no default image, no role or security group of its own."""
    from ray.autoscaler._private.aws import config as of_aws
    from ray.autoscaler._private.util import prepare_config

    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        config: dict[str, Any] = prepare_config(yaml.safe_load((CLUSTER / "autoscaler" / "aws.yaml").read_text()))
        region = config["provider"]["region"]
        ec2, iam = boto3.client("ec2", region), boto3.client("iam", region)
        subnet = ec2.describe_subnets()["Subnets"][0]
        group = ec2.create_security_group(GroupName="vadv-ray", Description="x", VpcId=subnet["VpcId"])["GroupId"]
        for kind in ("head", "worker"):  # as infra/launcher makes them
            iam.create_instance_profile(InstanceProfileName=f"vadv-ray-{kind}")
        before = {one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]}
        for node in config["available_node_types"].values():
            node["node_config"] |= {"SecurityGroupIds": [group], "SubnetIds": [subnet["SubnetId"]]}
        ready = of_aws.bootstrap_aws(config)
        assert {one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]} == before
        assert iam.list_roles()["Roles"] == []
        head, worker = (ready["available_node_types"][name]["node_config"] for name in ("head", "gpu_spot"))
        assert head["IamInstanceProfile"] == {"Name": "vadv-ray-head"}
        assert worker["IamInstanceProfile"] == {"Name": "vadv-ray-worker"}
        for node in (head, worker):
            assert node["SecurityGroupIds"] == [group]
            assert node["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/ami/")
    terraform = (ROOT / "infra" / "launcher" / "main.tf").read_text()
    assert 'aws_service_name = "spot.amazonaws.com"' in terraform  # a new account has no role for spot machines
    assert 'name        = "vadv-ray"' in terraform
    assert 'name     = "vadv-ray-${each.key}"' in terraform
    assert terraform.count("0.0.0.0/0") == 1  # egress


def test_google_images_have_a_driver_for_the_wheels_cuda() -> None:
    """CUDA 13 needs driver 580; torch's wheels in the image are built for CUDA 13."""
    text = (CLUSTER / "autoscaler" / "gcp.yaml").read_text()
    [driver] = re.findall(r"-nvidia-(\d+)$", text, re.MULTILINE)
    assert int(driver) >= 580
    assert "nvidia-nccl-cu13" in (ROOT / "infra" / "docker" / "requirements-gpu.txt").read_text()

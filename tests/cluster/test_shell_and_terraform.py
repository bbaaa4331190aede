"""Scripts and Terraform files parse; nothing that is shipped contains a secret."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rendered import CLUSTER, ROOT

FOLDERS = (CLUSTER, ROOT / "infra")
SCRIPTS = sorted(path for folder in FOLDERS for path in folder.rglob("*") if path.suffix in {".sh", ".sbatch"})


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_parse(path: Path) -> None:
    shell = "bash" if path.read_text().startswith("#!/bin/bash") else "sh"
    subprocess.run([shell, "-n", path], check=True)
    if linter := shutil.which("shellcheck"):
        done = subprocess.run([linter, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_slurm_script_asks_for_a_config_and_an_environment(tmp_path: Path) -> None:
    script = CLUSTER / "slurm" / "vadv.sbatch"
    none = subprocess.run(["bash", script], capture_output=True, text=True)
    assert none.returncode == 2
    assert "no config given" in none.stderr
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "HOME": str(tmp_path)}
    none = subprocess.run(["bash", script, "a.yaml"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert none.returncode == 2
    assert "make setup" in none.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
@pytest.mark.parametrize("folder", ["terraform", "launcher"])
def test_terraform_parses_and_is_formatted(folder: str) -> None:
    """`terraform validate` would download providers."""
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", ROOT / "infra" / folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["terraform", "launcher"])
def test_what_terraform_refers_to_is_declared(folder: str) -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "infra" / folder).glob("*.tf")))
    code = re.sub(r"#.*", "", text)
    variables = set(re.findall(r'^variable "(\w+)"', code, re.MULTILINE))
    assert set(re.findall(r"\bvar\.(\w+)", code)) == variables
    modules = set(re.findall(r'^module "(\w+)"', code, re.MULTILINE))
    assert set(re.findall(r"\bmodule\.(\w+)", code)) == modules
    resources = {".".join(pair) for pair in re.findall(r'^resource "(\w+)" "(\w+)"', code, re.MULTILINE)}
    data = {".".join(pair) for pair in re.findall(r'^data "(\w+)" "(\w+)"', code, re.MULTILINE)}
    assert {".".join(pair) for pair in re.findall(r"\bdata\.(\w+)\.(\w+)", code)} == data
    used = {".".join(pair) for pair in re.findall(r"(?<!data\.)\b((?:aws|helm)_\w+)\.(\w+)", code)}
    assert used <= resources


def test_no_shipped_file_contains_a_secret() -> None:
    looks = re.compile(
        r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|(?i:secret_access_key\s*[:=]\s*\S{16,})|[0-9a-f]{64}"
    )
    kinds = {".yaml", ".yml", ".sh", ".sbatch", ".tf", ".tftpl", ".md", ".json", ".toml"}
    for folder in ("cluster", "infra", "jobs", "tune_spaces"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in kinds:
                assert not looks.search(path.read_text()), path


def test_documents_write_where_jobs_may_write() -> None:
    """The prefixes of the bucket that documents use are those that infra/ lets jobs write to, or that people fill."""
    variables = (ROOT / "infra" / "terraform" / "variables.tf").read_text()
    [listed] = re.findall(r'variable "writable_prefixes" \{[^}]*default\s*= \[([^\]]*)\]', variables)
    writable = set(re.findall(r"\w+", listed))
    launcher = (ROOT / "infra" / "launcher" / "main.tf").read_text()
    assert set(re.findall(r"\$\{var.bucket\}/(\w+)/\*", launcher)) == writable
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "cluster").rglob("*.yaml")]
    used = {
        prefix
        for path in documents
        for prefix in re.findall(r"s3://(?:bucket|BUCKET|YOUR-BUCKET|\$VADV_BUCKET)/([\w-]+)", path.read_text())
    }
    assert writable < used | {"exports"}
    assert used <= writable | {"data", "models", "PREFIX"}


def test_documents_use_images_that_are_built() -> None:
    """A tag ends in the kind of image, -cpu or -gpu."""
    documents = [*(ROOT / "docs").glob("*.md"), *CLUSTER.rglob("*.yaml"), ROOT / "infra" / "docker" / "Dockerfile"]
    tags = {tag for path in documents for tag in re.findall(r"\bvadv:([\w.-]+)", path.read_text())}
    assert tags == {"0.2.0-cpu", "0.2.0-gpu"}


def test_terraform_removes_what_it_made_and_both_routes_make_the_role_for_spot_machines() -> None:
    infra = ROOT / "infra"
    repository = (infra / "terraform" / "storage.tf").read_text().partition('"aws_ecr_repository" "images"')[2]
    assert re.search(r"force_delete\s+= true", repository.partition("\n}")[0])  # otherwise it must be empty
    for path in (infra / "terraform" / "platform.tf", infra / "launcher" / "main.tf"):
        role = path.read_text().partition('"aws_iam_service_linked_role" "spot"')[2].partition("\n}")[0]
        assert "var.create_spot_role ? 1 : 0" in role
        assert '"spot.amazonaws.com"' in role

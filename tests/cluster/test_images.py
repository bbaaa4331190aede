"""Container images install exact versions pinned by hash and do not run as root."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra" / "docker"


def locked(kind: str) -> dict[str, str]:
    """Version of each package of a requirements file; each must have a hash."""
    text = (DOCKER / f"requirements-{kind}.txt").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([\w.-]+)==([\w.+]+)(?:\s+--hash=sha256:[0-9a-f]{64})+", line.strip())
        assert match, line[:100]
        found[canonicalize_name(match[1])] = match[2]
    return found


def needed() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["cluster"]]
    return {canonicalize_name(one.name) for one in asked}


def test_locked_versions_match_the_tested_ones() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    constraints = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    for kind in ("cpu", "gpu"):
        differing = {
            name: (version, constraints[name])
            for name, version in locked(kind).items()
            if constraints.get(name, version) != version
        }
        assert not differing, "`make lock` writes them anew"


def test_all_dependencies_are_locked() -> None:
    gpu, cpu = locked("gpu"), locked("cpu")
    assert needed() <= set(gpu)
    assert needed() - {"torch"} <= set(cpu)
    of_torch = [Requirement(line) for line in metadata.requires("torch") or []]
    assert {canonicalize_name(one.name) for one in of_torch if not one.marker or one.marker.evaluate()} <= set(gpu)
    plain = {canonicalize_name(one.name) for one in of_torch if one.marker is None}
    assert {name for name in plain if not name.startswith(("nvidia-", "cuda-"))} - {"triton"} <= set(cpu)
    # The CPU image gets torch from another index and does not need the CUDA packages.
    lacking = set(gpu) - set(cpu)
    assert {"torch", "triton", "nvidia-nccl-cu13"} <= lacking
    assert all(name.startswith(("nvidia-", "cuda-")) for name in lacking - {"torch", "triton"}), lacking
    assert cpu.items() <= gpu.items()
    assert "setuptools" in locked("build")


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_an_image_installs_only_hashed_packages_except_cpu_torch_and_runs_unprivileged(kind: str) -> None:
    text = re.sub(r"^#.*\n", "", (DOCKER / f"Dockerfile.{kind}").read_text(), flags=re.MULTILINE)
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert len(installs) >= 3
    without = [line for line in installs if "--require-hashes" not in line]
    assert all("--no-deps" in line for line in without)
    assert [line.split()[-1] for line in without] == (["torch", "."] if kind == "cpu" else ["."])
    assert text.rindex("USER 1000") > text.rindex("\nFROM ")
    shipped = [rule[1:] for rule in (ROOT / ".dockerignore").read_text().split() if rule.startswith("!")]
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert any(source == rule or Path(source).match(rule) for rule in shipped), source

"""Container images install exact versions pinned by hash and do not run as root."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

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


def dockerfile() -> str:
    """Its instructions, one a line, without comments."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    return text.replace("\\\n", " ")


def test_an_image_installs_only_hashed_packages_except_cpu_torch_and_runs_unprivileged() -> None:
    text = dockerfile()
    # torch.compile needs them where it runs; without recommended packages, gcc has no headers of C.
    assert {"gcc", "libc6-dev"} <= set(text[text.rindex("\nFROM ") :].split())
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert len(installs) == 4
    without = [line for line in installs if "--require-hashes" not in line]
    assert all("--no-deps" in line for line in without)
    assert [line.split()[-1] for line in without] == ["torch", "."]
    assert without[0].startswith('RUN [ "${KIND}" = gpu ] || ')
    assert text.rindex("USER 1000") > text.rindex("\nFROM ")
    shipped = [rule[1:] for rule in (ROOT / ".dockerignore").read_text().split() if rule.startswith("!")]
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                for name in (source.replace("${KIND}", kind) for kind in ("cpu", "gpu")):
                    assert (ROOT / name).exists()
                    assert any(name == rule or Path(name).match(rule) for rule in shipped), name


def test_an_image_has_what_its_users_call() -> None:
    """Ray's launcher: ssh, rsync, ps, and the clouds' clients; KubeRay's probes: wget; NCCL: libibverbs."""
    [line] = [line for line in dockerfile().splitlines() if "apt-get install" in line]
    assert {"openssh-client", "rsync", "procps", "wget", "libibverbs1", "ibverbs-providers"} <= set(line.split())
    for kind in ("cpu", "gpu"):
        assert {"boto3", "google-api-python-client", "google-auth-httplib2"} <= set(locked(kind))


def test_login_shells_find_the_programs() -> None:
    """Ray's launcher runs `bash --login`, which resets PATH; /etc/profile.d restores it."""
    [line] = [line for line in dockerfile().splitlines() if "/etc/profile.d/" in line]
    [export] = re.findall(r"echo '(export PATH=\S+)' > /etc/profile.d/\S+\.sh$", line.strip())
    assert export == "export PATH=/opt/vadv/bin:$PATH"
    [path] = re.findall(r"ENV PATH=(\S+)", dockerfile())
    assert path == "/opt/vadv/bin:$PATH"

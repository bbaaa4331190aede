"""Hosts for tests of cluster files: namespaces of this machine, each with its own address, processes and /tmp/ray.

Two Ray nodes with the same address and the same process table would take each other's processes for their own.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray_nodes import end_with_parent

_NETWORK = f"10.217.{os.getpid() % 250}"  # of its own for each process of tests
OUTSIDE = f"{_NETWORK}.254"
"""Address of the machine itself, as hosts see it."""


def _can_make() -> bool:
    if os.geteuid() != 0 or not all(shutil.which(name) for name in ("ip", "unshare", "nsenter")):
        return False
    return (
        subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode
        == 0
    )


needs_hosts = pytest.mark.skipif(not _can_make(), reason="network namespaces need root and iproute2 (Debian: iproute2)")


@dataclass(frozen=True)
class Host:
    """A host.

    Attributes:
        address: its address.
        init: id of the process that holds its namespaces.
    """

    address: str
    init: int

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs a command on it."""
        return ["nsenter", f"--target={self.init}", "--net", "--pid", "--mount", "--", *map(str, command)]

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a command on it in its own session."""
        with log.open("ab") as file:
            return subprocess.Popen(
                self.command(command), env=dict(environment), stdout=file, stderr=file, start_new_session=True
            )


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[Host]]:
    """Connected hosts; everything on them is killed in the end."""
    bridge = f"vb{os.getpid() % 100000}"
    _ip(f"link add {bridge} type bridge")
    made: list[tuple[Host, subprocess.Popen[bytes]]] = []
    try:
        _ip(f"addr add {OUTSIDE}/24 dev {bridge}")
        _ip(f"link set {bridge} up")
        for number in range(1, count + 1):
            setup = "mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && ip link set lo up && echo ready"
            setup += " && while true; do sleep 3600 & wait; done"  # as process 1, it collects what ended
            command = [
                "unshare",
                "--net",
                "--pid",
                "--mount",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                setup,
            ]
            outer = subprocess.Popen(
                command, stdout=subprocess.PIPE, start_new_session=True, preexec_fn=end_with_parent
            )
            assert outer.stdout is not None
            assert outer.stdout.readline() == b"ready\n"
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
            host = Host(f"{_NETWORK}.{number}", int(children[0]))
            made.append((host, outer))
            _ip(f"link add {bridge}-{number} type veth peer name eth0 netns {host.init}")
            _ip(f"link set {bridge}-{number} master {bridge} up")
            for command in (f"addr add {host.address}/24 dev eth0", "link set eth0 up"):
                subprocess.run(host.command(["ip", *command.split()]), check=True)
        yield [host for host, _ in made]
    finally:
        for _, outer in made:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(outer.pid, signal.SIGKILL)
            outer.wait(30)
            assert outer.stdout is not None
            outer.stdout.close()
        for number in range(1, len(made) + 1):  # the kernel may take its time to remove them with their namespaces
            subprocess.run(["ip", "link", "delete", f"{bridge}-{number}"], stderr=subprocess.DEVNULL, check=False)
        _ip(f"link delete {bridge}")


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)

"""Run a `vadv` command with little memory, which must suffice for malicious files."""

import resource
import subprocess
import sys

LIMIT_BYTES = 1 << 30


def run_limited(*arguments: object, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run `vadv` in a process with a limit of 1 GiB of private memory, which its child processes inherit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))

    return subprocess.run(
        [sys.executable, "-m", "vadv_dist.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        preexec_fn=limit,
    )


def refused(*arguments: object) -> str:
    """Run `vadv` with little memory; it must end with exit code 2 and one message, which is returned."""
    run = run_limited(*arguments)
    assert run.returncode == 2, f"{run.returncode}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"
    assert "Traceback" not in run.stderr
    assert run.stderr.count("vadv: ") == 1, run.stderr
    return run.stderr

"""Run `vadv` in a process that stops itself at a chosen place, so that a test can signal it there without a race.

A test that watches a process from outside may see the sign it waits for only after the process has ended.
"""

import glob
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

LOG_LINE = "vadv_dist.runs.metrics_log:MetricsLog.append"
EXTRACTED_SHARD = "vadv_dist.features.work:WorkFolder.commit"


def start_until(hook: str, pattern: Path, arguments: list[str], *, count: int = 1, env: Any = None) -> subprocess.Popen:
    """Start `vadv ARGUMENTS` and wait until it has stopped itself.

    Args:
        hook: `module:Class.method`; the process may stop after a call of it, once.
        pattern: it stops once `count` files match.
        arguments: of `vadv`.
        count: matching files, or lines if it is a single file's path.
        env: environment of the process.
    Returns:
        the process, which continues on SIGCONT.
    """
    command = [sys.executable, __file__, hook, str(pattern), str(count), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert found.si_code == os.CLD_STOPPED, process.communicate()
    return process


def signal_stopped(process: subprocess.Popen, number: signal.Signals) -> tuple[str, str]:
    """Send a signal to a stopped process, continue it, and return its standard output and error."""
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=300)


def _reached(pattern: str, count: int) -> bool:
    if "*" not in pattern and count > 1:
        return Path(pattern).is_file() and len(Path(pattern).read_text().splitlines()) >= count
    return len(glob.glob(pattern)) >= count


def _main(hook: str, pattern: str, count: int, arguments: list[str]) -> None:
    module, _, path = hook.partition(":")
    class_name, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), class_name)
    original, has_stopped = getattr(owner, method), False

    def stopping(*given: Any, **named: Any) -> Any:
        nonlocal has_stopped
        answer = original(*given, **named)
        if not has_stopped and _reached(pattern, count):
            has_stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return answer

    setattr(owner, method, stopping)
    from vadv_dist.cli import run

    run(arguments)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])

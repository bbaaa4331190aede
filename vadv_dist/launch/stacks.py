"""Python stacks of this process and of one that no longer answers."""

import contextlib
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import IO

# A process that cannot run Python code writes its stacks on this signal, from C.
_SIGNAL = signal.SIGUSR2
_WRITING_S, _PY_SPY_S = 1.0, 10.0
_file: IO[bytes] | None = None  # stays open for the signal handler


def own_stacks() -> str:
    """Stacks of all threads of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        lines = "".join(traceback.format_stack(frame))
        parts.append(f"Thread {names.get(ident, ident)}:\n{lines}")
    return "\n".join(parts)


def write_stacks_on_signal() -> int:
    """Have this process write its stacks on SIGUSR2, even while a thread keeps the interpreter's lock.

    Returns:
        number of the open file without a name to which it writes them.
    """
    global _file
    if _file is None:
        _file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process lives
        faulthandler.register(_SIGNAL, file=_file, all_threads=True, chain=False)
    return _file.fileno()


def stacks_of(pid: int, file: int) -> str:
    """Stacks of another process on this machine that does not answer, and its state in the kernel.

    A stopped process (state T) does not handle signals; `py-spy`, if it is installed, reads its stacks from outside.

    Args:
        pid: the process.
        file: what its `write_stacks_on_signal` returned.
    """
    state = _state(pid)
    if state is None:
        return f"process {pid} does not exist"
    parts = [f"process {pid}: state {state}"]
    if state.startswith("T"):
        if (spy := shutil.which("py-spy")) is not None:
            command = [spy, "dump", "--nonblocking", "--pid", str(pid)]
            try:
                answer = subprocess.run(command, capture_output=True, text=True, timeout=_PY_SPY_S)
                parts.append(answer.stdout or answer.stderr)
            except (OSError, subprocess.SubprocessError) as error:
                parts.append(f"py-spy: {error}")
        else:
            parts.append("A stopped process cannot write its stacks; install py-spy on the node to have them here.")
        return "\n".join(parts)
    try:
        os.kill(pid, _SIGNAL)
        time.sleep(_WRITING_S)
        parts.append(Path(f"/proc/{pid}/fd/{file}").read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        parts.append(f"no stacks: {error}")
    return "\n".join(parts)


def kill(pid: int) -> None:
    """End a process of this machine at once, also a stopped one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _state(pid: int) -> str | None:
    """State of a process, such as `T (stopped)`; None if there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("State:")), "?")

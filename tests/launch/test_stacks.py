"""Stacks of this process, of one whose thread keeps the interpreter, and of one that is stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vadv_dist.launch.stacks import kill, own_stacks, stacks_of

# `(a+)+b` backtracks exponentially inside of C, so that no other thread runs Python code.
CHILD = """
import re
from vadv_dist.launch.stacks import write_stacks_on_signal
def keeps_the_interpreter(file):
    print(file, flush=True)
    re.match("(a+)+b", "a" * 60)
keeps_the_interpreter(write_stacks_on_signal())
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux")


def test_own_stacks_name_threads_and_functions() -> None:
    shown = own_stacks()
    assert "Thread MainThread" in shown
    assert "test_own_stacks_name_threads_and_functions" in shown


def test_process_that_cannot_answer_shows_its_stacks_unless_it_is_stopped() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        file = int(child.stdout.readline())
        assert "keeps_the_interpreter" in stacks_of(child.pid, file)
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert "state T (stopped)" in stacks_of(child.pid, file)
    finally:
        kill(child.pid)
        assert child.wait(10) == -signal.SIGKILL
        child.stdout.close()
    assert stacks_of(child.pid, file) == f"process {child.pid} does not exist"

import os
import subprocess
import sys

import pytest

from vadv_dist.engines.allocator import THREAD_ENVIRONMENT

_COUNT_FAULTS = """
import resource, sys, threading
from vadv_dist.engines.allocator import keep_freed_memory

def step():
    blocks = [bytearray(8 << 20) for _ in range(8)]

def steps():
    kept = keep_freed_memory()
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before if kept else -1)

if sys.argv[1] == "first":
    steps()
else:
    threading.Thread(target=steps).start()
"""


@pytest.mark.parametrize("thread", ["first", "other"])
def test_freed_memory_is_reused_without_page_faults(thread: str) -> None:
    environment = {**os.environ, **(THREAD_ENVIRONMENT if thread == "other" else {})}
    command = [sys.executable, "-c", _COUNT_FAULTS, thread]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    faults = int(done.stdout)
    if faults < 0:
        pytest.skip("this C library has no mallopt")
    faults_without = 10 * (64 << 20) // 4096
    assert faults < faults_without / 100

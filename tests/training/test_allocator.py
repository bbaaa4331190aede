import subprocess
import sys

import pytest

_COUNT_FAULTS = """
import resource
from vadv_dist.training.allocator import keep_freed_memory

kept = keep_freed_memory()
bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before if kept else -1)
"""


def test_memory_freed_by_one_step_is_used_again_by_the_next_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", _COUNT_FAULTS], capture_output=True, text=True, check=True)
    faults = int(done.stdout)
    if faults < 0:
        pytest.skip("this C library has no mallopt")
    faults_without = 10 * (64 << 20) // 4096
    assert faults < faults_without / 100

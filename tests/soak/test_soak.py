"""Ten minutes of random faults lose nothing."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2500)
def test_nothing_is_lost_in_ten_minutes_of_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--minutes", "10"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=2400,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "| **all** |" in done.stdout

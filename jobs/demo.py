"""`make run`: train on made data, alone and beside the teacher. Takes --section.field=value overrides."""

import sys

from vadv_dist.cli import exit_code_of
from vadv_dist.demo import run_demo
from vadv_dist.runtime.signals import sigterm_raises
from vadv_dist.runtime.terminal import console


def main() -> int:
    """Run the demonstration and say where its report is."""
    print(f"report: {run_demo(sys.argv[1:], console(stderr=True))}")
    return 0


if __name__ == "__main__":
    with sigterm_raises():
        code = exit_code_of(main)
    sys.exit(code)

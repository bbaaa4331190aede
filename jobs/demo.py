"""`make run`: train on synthetic data with and without the teacher. Accepts --section.field=value overrides."""

import sys

from vadv_dist.cli import exit_code_of
from vadv_dist.demo import run_demo
from vadv_dist.runtime.signals import sigterm_raises
from vadv_dist.runtime.terminal import console


def main() -> int:
    """Run the demo and print the path of its report."""
    print(f"report: {run_demo(sys.argv[1:], console(stderr=True))}")
    return 0


if __name__ == "__main__":
    with sigterm_raises():
        code = exit_code_of(main)
    sys.exit(code)

"""Evaluate on a Ray cluster: `ray job submit … -- python jobs/evaluate.py runs/mosi --split test`."""

import sys

from vadv_dist.cli import run

if __name__ == "__main__":
    run(["evaluate", *sys.argv[1:]])

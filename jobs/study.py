"""Run a study on a Ray cluster: `ray job submit … -- python jobs/study.py jobs/studies/objectives.yaml`."""

import sys

from vadv_dist.cli import run

if __name__ == "__main__":
    run(["study", *sys.argv[1:]])

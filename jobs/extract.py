"""Extract features on a Ray cluster: `ray job submit … -- python jobs/extract.py --config extract.yaml`."""

import sys

from vadv_dist.cli import run

if __name__ == "__main__":
    run(["extract", *sys.argv[1:]])

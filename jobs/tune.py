"""Search on a Ray cluster: `ray job submit … -- python jobs/tune.py --config … --space tune_spaces/joint.yaml`."""

import sys

from vadv_dist.cli import run

if __name__ == "__main__":
    run(["tune", *sys.argv[1:]])

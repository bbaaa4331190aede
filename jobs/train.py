"""Train on a Ray cluster: `ray job submit … -- python jobs/train.py --config jobs/configs/mosi-zero2.yaml`."""

import sys

from vadv_dist.cli import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])

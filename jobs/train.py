"""Train on a Ray cluster: `ray job submit … -- python jobs/train.py --config jobs/configs/mosi.yaml`."""

import sys

from vadv_dist.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

"""Extract features on a Ray cluster: `ray job submit … -- python jobs/extract.py --config extract.yaml`."""

import sys

from vadv_dist.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))

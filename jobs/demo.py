"""`make run`: train on made data, alone and beside the teacher. Takes --section.field=value overrides."""

import sys

from vadv_dist.demo import run_demo
from vadv_dist.errors import VadvError
from vadv_dist.terminal import console


def main() -> int:
    """Run the demonstration and say where its report is."""
    try:
        print(f"report: {run_demo(sys.argv[1:], console(stderr=True))}")
    except VadvError as error:
        print(f"vadv: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

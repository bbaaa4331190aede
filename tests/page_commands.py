"""Run the commands of a page, given as a JSON list on standard input, one after another in this process."""

import json
import shlex
import sys
import time

from vadv_dist.cli import main

for command in json.load(sys.stdin):
    began = time.monotonic()
    code = main(shlex.split(command)[1:])
    print(f"{time.monotonic() - began:5.1f} s, exit code {code}: {command}", file=sys.stderr, flush=True)
    if code:
        sys.exit(f"this command of the page failed: {command}")

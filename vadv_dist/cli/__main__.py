"""`python -m vadv_dist.cli`."""

from vadv_dist.cli.command import run

run()

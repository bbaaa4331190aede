"""The command line, `vadv`: one library call per subcommand.

Heavy imports stand inside the calls, so that `--help` answers at once.
"""

from vadv_dist.cli.command import main, run

__all__ = ["main", "run"]

"""The command line, `vadv`: one library call per subcommand.

Heavy imports stand inside the calls, so that `--help` answers at once.
"""

from vadv_dist.cli.command import exit_code_of, main, run

__all__ = ["exit_code_of", "main", "run"]

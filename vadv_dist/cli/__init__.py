"""The command line, `vadv`: one library call per subcommand.

Heavy modules are imported inside the calls, so that `--help` is fast.
"""

from vadv_dist.cli.command import exit_code_of, main, run

__all__ = ["exit_code_of", "main", "run"]

"""Which arguments of the command line name places that a command writes to."""

import argparse
from pathlib import Path

from vadv_dist.runtime.job_storage import lasting

# Of `train`, `tune` and `extract` it is fields of their configurations.
OUTPUTS = {
    "synth": ("out",),
    "ingest": ("out",),
    "data-info": ("pictures",),
    "evaluate": ("run",),
    "predict": ("output",),
    "export": ("out",),
    "report": ("run",),
    "recipes": ("file",),
}


def keep_outputs(options: argparse.Namespace) -> None:
    """Put lasting places where a Ray job would lose what is written to those that were given.

    Raises:
        UserError: see `lasting`.
    """
    for name in OUTPUTS.get(options.command, ()):
        given = getattr(options, name, None)
        if given is not None:
            kept = lasting(str(given), f"{options.command}: {name}")
            setattr(options, name, Path(kept) if isinstance(given, Path) else kept)

"""The command-line arguments that name places a command writes to."""

import argparse
from pathlib import Path

from vadv_dist.runtime.job_storage import lasting

# `train`, `tune` and `extract` take theirs from the configuration.
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
    """Inside a Ray job, replace output places that would be lost with the job by persistent ones.

    Raises:
        UserError: see `lasting`.
    """
    for name in OUTPUTS.get(options.command, ()):
        given = getattr(options, name, None)
        if given is not None:
            kept = lasting(str(given), f"{options.command}: {name}")
            setattr(options, name, Path(kept) if isinstance(given, Path) else kept)

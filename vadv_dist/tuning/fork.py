"""Start a run from another run's checkpoint under a new configuration.

The new run has its own folder, so every run folder has a single configuration; `metrics.jsonl` and the checkpoints hold
the history of the weights.
"""

import contextlib
import os
import shutil

from vadv_dist.config import Config, config_to_yaml
from vadv_dist.errors import MachineError
from vadv_dist.runs.checkpoint import last_checkpoint, list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runtime.terminal import counted
from vadv_dist.storage import atomic_directory, local_copy, sweep
from vadv_dist.training.clip_errors import copy_clip_errors


def epochs_trained(folder: RunFolder) -> int:
    """Number of epochs before a run's last checkpoint; 0 if it has none."""
    last = last_checkpoint(folder.checkpoints)
    return int(last.state()["epoch"]) if last else 0


def fork(source: RunFolder, config: Config, epochs: int) -> None:
    """Create the run of `config` from the end of an epoch of another run, completely or not at all.

    Position, weights, moments and the best checkpoint are those of the source. The learning rate keeps its position on
    the cosine; its peak is that of the new configuration. A run that already exists is left as it is.

    Args:
        source: a run that was stopped there and still has its checkpoints.
        config: differs from the source's configuration only in its name and in fields that fit the same weights.
        epochs: number of epochs that the source has trained.
    Raises:
        MachineError: the source's last checkpoint is at another position.
    """
    target = RunFolder.of(config)
    if target.config_path.is_file():
        return
    last = last_checkpoint(source.checkpoints)
    state = last.state() if last else {"epoch": 0, "step_in_epoch": 0}
    if last is None or (state["epoch"], state["step_in_epoch"]) != (epochs, 0):
        raise MachineError(
            f"The last checkpoint of {source.root} is after {counted(state['epoch'], 'epoch')}, but {target.root} "
            f"continues from it after {epochs}. Its checkpoints were changed from outside. Give the search another "
            "--run.name."
        )
    sweep(target.root.parent, [target.root.name])  # remains of a killed fork
    with atomic_directory(target.root, manifest="config.yaml") as upload:
        for checkpoint in list_checkpoints(source.checkpoints):
            with local_copy(checkpoint.path) as folder:
                shutil.copytree(folder, upload.folder / "checkpoints" / checkpoint.path.name, copy_function=_link)
        # Training removes lines after the checkpoint when it starts.
        for path in (source.metrics_path, source.trained_on_path):
            if path.is_file():
                (upload.folder / path.name).write_bytes(path.read_bytes())
        copy_clip_errors(source.root, upload.folder)
        (upload.folder / "config.yaml").write_text(config_to_yaml(config), encoding="utf-8")


def _link(source: str, copy: str) -> str:
    """Files of a checkpoint are never modified, so both runs can share them on a disk."""
    with contextlib.suppress(OSError):
        os.link(source, copy)
        return copy
    return str(shutil.copy2(source, copy))

"""Begin a run from where another one stands: its checkpoints and history under a configuration of its own.

The run that it is taken from keeps its folder and its configuration; the new one is a folder of its own, so that every
run folder holds one configuration, and `metrics.jsonl` and checkpoints tell the history of the weights.
"""

import contextlib
import json
import os
import shutil

from vadv_dist.config import Config, config_to_yaml
from vadv_dist.errors import MachineError
from vadv_dist.runs.checkpoint import list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.storage import atomic_directory, local_copy, sweep, write_json
from vadv_dist.training.clip_errors import copy_clip_errors


def epochs_behind(folder: RunFolder) -> int:
    """Epochs that the last checkpoint of a run has behind it; 0 where there is none."""
    checkpoints = list_checkpoints(folder.checkpoints)
    return int(checkpoints[-1].state()["epoch"]) if checkpoints else 0


def fork(source: RunFolder, config: Config, epochs: int) -> None:
    """Make the run of `config` from the end of an epoch of another run, whole or not at all; one that exists stays.

    Position, weights, moments and the best checkpoint so far are those of the source. The learning rate goes on from
    that place on the cosine, at the peak that the new configuration names.

    Args:
        source: a run that has stopped there, whose checkpoints are still kept.
        config: differs from the source's in its name, and in fields that fit the same weights.
        epochs: epochs that both have behind them.
    Raises:
        MachineError: the source stands elsewhere.
    """
    target = RunFolder.of(config)
    if target.config_path.is_file():
        return
    checkpoints = list_checkpoints(source.checkpoints)
    state = checkpoints[-1].state() if checkpoints else {"epoch": 0, "step_in_epoch": 0}
    if not checkpoints or (state["epoch"], state["step_in_epoch"]) != (epochs, 0):
        raise MachineError(
            f"{source.root} stands after {state['epoch']} epochs, but {target.root} goes on from it after {epochs}. "
            "Its checkpoints were changed from outside. Give the search another name (--run.name=…)."
        )
    sweep(target.root.parent, [target.root.name])  # of killed forks
    with atomic_directory(target.root, manifest="config.yaml") as upload:
        for checkpoint in checkpoints:
            with local_copy(checkpoint.path) as folder:
                shutil.copytree(folder, upload.folder / "checkpoints" / checkpoint.path.name, copy_function=_link)
        lines = [
            json.dumps(line.to_json()) + "\n"
            for line in source.metrics_log().lines()
            if line.step <= checkpoints[-1].step
        ]
        (upload.folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
        if (trained_on := source.trained_on()) is not None:
            write_json(upload.folder / target.trained_on_path.name, trained_on.to_json())
        copy_clip_errors(source.root, upload.folder)
        (upload.folder / "config.yaml").write_text(config_to_yaml(config), encoding="utf-8")


def _link(source: str, copy: str) -> str:
    """Files of a checkpoint are never written to again, so both runs may share them on a disk."""
    with contextlib.suppress(OSError):
        os.link(source, copy)
        return copy
    return str(shutil.copy2(source, copy))

"""Complete a run on rank 0: export the best student and write result.json."""

import contextlib
import importlib.metadata
import os
import platform
from dataclasses import asdict
from typing import Any

from vadv_dist.config import Config, config_to_dict
from vadv_dist.data.context import separated, separator_of
from vadv_dist.engines.distributed import Distributed
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.runs.checkpoint import checkpoint_at, prune
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import RunResult, finite
from vadv_dist.runs.state import TrainState
from vadv_dist.runs.trained_on import SourceIdentity
from vadv_dist.tasks.base import StudentFacts, Task
from vadv_dist.training.clip_errors import read_clip_predictions
from vadv_dist.training.splits import Splits


def finish_run(
    config: Config,
    folder: RunFolder,
    splits: Splits,
    task: Task,
    state: TrainState,
    distributed: Distributed,
    parameters: dict[str, int],
) -> None:
    """Export the student of the best checkpoint and write the run's result."""
    best_step, data = state.best[0][1], data_facts(splits)
    student = finite(state.best_metrics[task.description.student.name])
    line = state.calibration
    applied = line if line is not None and not line.left_out else None
    known = read_clip_predictions(folder.root, best_step)
    facts = StudentFacts(config.run.name, student, data, config_to_dict(config), applied, known)
    weights = task.calibrated(checkpoint_at(folder.checkpoints, best_step).weights(), line)
    task.export(folder.student, weights, facts)
    result = RunResult(
        run=config.run.name,
        best_step=best_step,
        best_epoch=state.best_epoch,
        validation=student,
        validation_all=finite(state.best_metrics),
        remarks=task.remarks(state.best_metrics),
        task=task.description,
        labels=task.labels,
        absent=task.absent(),
        validation_by_source=finite(state.best_by_source),
        weights_collapsed=state.collapse,
        calibration=line,
        steps=state.step,
        epochs=state.epoch,
        stopped=str(state.stopped),
        folder=os.getcwd(),
        wall_time_s=round(state.seconds, 3),
        checkpoint_blocked_s=round(state.checkpoint_blocked_s, 3),
        checkpoint_write_s=round(state.checkpoint_write_s, 3),
        data=data,
        texts_cut={
            split.name: count_tokens(
                task.tokenizer, separated(split.texts(), separator_of(task.tokenizer)), config.data.max_tokens
            ).to_json()
            for split in (splits.train, splits.valid)
            if task.tokenizer is not None
        },
        parameters=parameters,
        engine=config.engine.title,
        workers=distributed.world_size if config.trainer.workers else 0,
        device=str(distributed.device),
        versions=versions(),
    )
    prune(folder.checkpoints, {*state.best_steps, state.step}, resumable={state.step})
    folder.write_result(result)


def data_facts(splits: Splits) -> list[dict[str, Any]]:
    """Name, location, fingerprint, label range and sizes of a run's data sets, and the share that was trained on."""
    sources, share = splits.train.sources, splits.train.share
    return [
        {
            "uri": str(dataset.root),
            **({"name": name} if name else {}),
            **asdict(SourceIdentity.of(dataset)),
            "rows": {split: dataset.manifest.rows(split) for split in dataset.manifest.splits},
            **({} if share is None else {"train_share": {**asdict(share), "rows": rows}}),
        }
        for name, dataset, rows in zip(sources.names, sources.datasets, splits.train.rows_per_source, strict=True)
    ]


def versions() -> dict[str, str]:
    """Versions of the packages that affect results."""
    names = ("vadv-dist", "torch", "transformers", "ray", "deepspeed", "pyarrow", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # one process needs no Ray
            found[name] = importlib.metadata.version(name)
    return found

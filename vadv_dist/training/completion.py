"""What rank 0 leaves behind when a run is complete: the best student as a text model, and result.json."""

import importlib.metadata
import os
import platform
from dataclasses import asdict, replace
from typing import Any

from vadv_dist.config import Config, config_to_dict
from vadv_dist.data.texts import texts_of
from vadv_dist.engines.distributed import Distributed
from vadv_dist.inference.export import export_student
from vadv_dist.inference.model_card import ModelCard
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.runs.checkpoint import checkpoint_at
from vadv_dist.runs.folder import RunFolder, finite
from vadv_dist.runs.state import TrainState
from vadv_dist.runs.trained_on import SourceIdentity
from vadv_dist.storage import Location
from vadv_dist.tasks.sentiment import SentimentTask, build_student
from vadv_dist.training.splits import Splits


def finish_run(
    config: Config,
    folder: RunFolder,
    splits: Splits,
    task: SentimentTask,
    state: TrainState,
    distributed: Distributed,
    parameters: dict[str, int],
) -> None:
    """Export the student of the best checkpoint and write the run's result."""
    best_step = state.best[0][1]
    data = data_facts(splits)
    export_best(config, folder, folder.student, best_step, task, state, data)
    folder.write_result(
        finite(
            {
                "run": config.run.name,
                "best_step": best_step,
                "best_epoch": state.best_epoch,
                "validation": state.best_metrics["student"],
                "validation_all": state.best_metrics,
                "remarks": task.remarks(state.best_metrics),
                **task.scale.describe(),
                **({"validation_by_source": state.best_by_source} if state.best_by_source else {}),
                **({"weights_collapsed": state.collapse} if state.collapse else {}),
                "steps": state.step,
                "epochs": state.epoch,
                "stopped": state.stopped,
                "folder": os.getcwd(),
                "wall_time_s": round(state.seconds, 3),
                "data": data,
                "texts_cut": {
                    split.name: count_tokens(task.tokenizer, texts_of(split), config.data.max_tokens).to_json()
                    for split in (splits.train, splits.valid)
                },
                "parameters": parameters,
                "engine": config.engine.kind
                + (f" zero-{config.engine.zero_stage}" if config.engine.kind == "deepspeed" else ""),
                "workers": distributed.world_size if config.trainer.num_workers else 0,
                "device": str(distributed.device),
                "versions": versions(),
            }
        )
    )


def export_best(
    config: Config,
    folder: RunFolder,
    out: Location,
    best_step: int,
    task: SentimentTask,
    state: TrainState,
    data: list[dict[str, Any]],
) -> None:
    """Write the best checkpoint's student as a text model."""
    student = build_student(replace(config, student=replace(config.student, pretrained=False)))
    weights = checkpoint_at(folder.checkpoints, best_step).weights()
    prefix = "student."
    student.load_state_dict({n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)})
    export_student(
        student,
        task.tokenizer,
        out,
        replace=True,
        card=ModelCard(
            name=config.run.name,
            encoder=config.student.encoder,
            max_tokens=config.data.max_tokens,
            metrics={"valid": finite(state.best_metrics["student"])},
            data=data,
            config=config_to_dict(config),
            labels=task.scale,
        ),
    )


def data_facts(splits: Splits) -> list[dict[str, Any]]:
    """Name, place, fingerprint, label range and sizes of the data sets of a run."""
    sources = splits.train.sources
    return [
        {
            "uri": str(dataset.root),
            **({"name": name} if name else {}),
            **asdict(SourceIdentity.of(dataset)),
            "rows": {split: dataset.manifest.rows(split) for split in dataset.manifest.splits},
        }
        for name, dataset in zip(sources.names, sources.datasets, strict=True)
    ]


def versions() -> dict[str, str]:
    """Versions of what decides numbers."""
    names = ("vadv-dist", "torch", "transformers", "ray", "deepspeed", "pyarrow", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}

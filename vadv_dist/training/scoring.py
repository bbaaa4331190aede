"""Run a model over a split and gather every clip's predictions."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vadv_dist.config.sections import Config
from vadv_dist.data.sources import SplitShards
from vadv_dist.data.stream import BatchStream
from vadv_dist.data.windows import Windows
from vadv_dist.engines.distributed import Distributed
from vadv_dist.engines.protocol import Engine
from vadv_dist.tasks.base import FloatArray, Metrics, Scorer, Task


@dataclass(frozen=True)
class Scored:
    """Labels and predictions of a split's clips, each [R], and their (source, clip_id); the same on every rank.

    A prediction is NaN for clips that lack a feature it needs.
    """

    names: list[tuple[str, str]]
    label: FloatArray
    predictions: dict[str, FloatArray]


def score_split(
    task: Task,
    engine: Engine,
    split: SplitShards,
    windows: Windows,
    config: Config,
    distributed: Distributed,
    *,
    max_batches: int | None = None,
    on_batch: Callable[[], None] = lambda: None,
    waiting: Callable[[], None] = lambda: None,
) -> Scored:
    """Predict every clip of a split once, divided among the ranks, or only the first `max_batches` batches.

    `on_batch` is called after each batch, and `waiting` while waiting for one; either may raise to leave.

    Raises:
        UserError: a shard is damaged.
    """
    plan = split.plan(
        config.data, seed=config.run.seed, epoch=0, shuffle=False, batch_size=config.trainer.eval_batch_size
    )
    stream = BatchStream(
        plan=plan,
        windows=windows,
        collator=task.collator,
        rank=distributed.rank,
        world_size=distributed.world_size,
        rows_in_use=split.rows_in_use,
        is_complete=split.is_complete,
        pin_memory=distributed.device.type == "cuda",
        # The train split keeps what it has read ahead during validation, and there is room for one window more.
        read_ahead=False,
        waiting=waiting,
    )
    names: list[tuple[str, str]] = []
    labels: list[Tensor] = []
    # On the device until the end: copying each batch's to the host would wait for the device.
    columns: dict[str, list[Tensor]] = {}
    for step in itertools.islice(stream.steps(), max_batches):
        for prepared in step.micro:
            batch = prepared.to(distributed.device)
            found = task.predictions(engine.predict(batch), batch)
            real = len(batch.names)  # filler rows follow
            names += batch.names
            labels.append(prepared.label[:real])
            for column, value in found.items():
                # A copy, because an engine may write the next batch's outputs into the same memory.
                columns.setdefault(column, []).append(value[:real].clone())
        on_batch()
    mine = (names, {column: torch.cat(parts).float().cpu().numpy() for column, parts in columns.items()})
    mine[1]["label"] = torch.cat(labels).numpy()
    shares = distributed.gather(mine)
    joined = {name: np.concatenate([share[1][name] for share in shares if share[0]]) for name in mine[1]}
    return Scored([name for share in shares for name in share[0]], joined.pop("label"), joined)


def metrics_by_source(task: Scorer, scored: Scored) -> dict[str, Metrics]:
    """Metrics of each source's clips, sorted by source name."""
    sources = np.array([source for source, _ in scored.names])
    by_source = {}
    for name in sorted(set(sources.tolist())):
        mine = sources == name
        by_source[name] = task.metrics({k: v[mine] for k, v in scored.predictions.items()}, scored.label[mine])
    return by_source

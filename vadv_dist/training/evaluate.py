"""Score the best checkpoint of a run on a split; nothing else may open the test split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vadv_dist.config import Config
from vadv_dist.data.reading import shard_content
from vadv_dist.data.schema import SPLITS
from vadv_dist.data.shared_videos import shared_videos
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.distributed import Distributed, choose_device
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import UserError
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.runs.checkpoint import checkpoint_at
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Evaluation, SourceScores, finite
from vadv_dist.runs.trained_on import find_again
from vadv_dist.storage import Location, atomic_file, write_json
from vadv_dist.tasks import Task, build
from vadv_dist.tasks.base import FloatArray
from vadv_dist.training.scoring import Scored, metrics_by_source, score_split


@dataclass(frozen=True)
class ClipFacts:
    """Metadata of scored clips, each [R]."""

    clip_id: list[str]
    video_id: list[str]
    source: list[str]
    text: list[str]


def evaluate_run(
    run: str | Location, split: str, *, data: Sequence[str] = (), encoder: str | None = None
) -> Evaluation:
    """Evaluate a run's best checkpoint and write `evaluation-<split>.json` and `predictions-<split>.parquet`.

    Args:
        run: its folder.
        split: a split of the data sets that the run was trained on, which are identified by fingerprint.
        data, encoder: new locations of its data sets and its encoder, if they were moved.
    Returns:
        the evaluation, as written.
    Raises:
        UserError: no such run or split, the run is not complete, or its data or encoder is not found.
        MachineError: the checkpoint is damaged.
    """
    require_split(split)
    folder = RunFolder.open(run)
    result = folder.result()
    trained_on = folder.trained_on()
    if result is None:
        raise UserError(f"{folder.root} is not complete (no result.json). Run its `vadv train` again to resume it.")
    if trained_on is None:
        raise UserError(f"{folder.trained_on_path} is missing, so the run's training data is unknown. Train it again.")
    config = find_again(folder.config(), trained_on, data, encoder)
    sources = Sources.open(config)
    shards = sources.split(split, missing=config.data.missing)
    task, scored = score_checkpoint(config, folder, sources, shards, result.best_step)
    facts = clip_facts(shards, scored)
    metrics = task.metrics(scored.predictions, scored.label)
    counts = Counter(facts.source)
    by_source = metrics_by_source(task, scored)
    tokenizer = task.tokenizer
    evaluation = Evaluation(
        run=config.run.name,
        split=split,
        step=result.best_step,
        rows=len(scored.label),
        dropped=shards.dropped,
        texts_cut={} if tokenizer is None else count_tokens(tokenizer, facts.text, config.data.max_tokens).to_json(),
        data=[{"uri": str(d.root.resolve()), "fingerprint": d.manifest.fingerprint} for d in sources.datasets],
        task=task.description,
        labels=task.labels,
        absent=task.absent(scored.label),
        metrics=finite(metrics),
        remarks=task.remarks(metrics),
        sources={name: SourceScores(rows=counts[name], metrics=finite(m)) for name, m in by_source.items()},
        leaks=leaks_of(sources, split),
    )
    write_predictions(folder.root / f"predictions-{split}.parquet", facts, scored)
    write_json(folder.root / f"evaluation-{split}.json", evaluation.to_json())
    return evaluation


def require_split(split: str) -> None:
    """Check the name of a split.

    Raises:
        UserError: there is no such split.
    """
    if split not in SPLITS:
        raise UserError(f"Unknown split {split!r}, expected one of {', '.join(SPLITS)}.")


def leaks_of(sources: Sources, split: str) -> list[dict[str, Any]]:
    """Videos in this split of one source that are also in another source's train split."""
    if len(sources.datasets) == 1 or split == "train":
        return []
    datasets = {str(name): dataset for name, dataset in zip(sources.names, sources.datasets, strict=True)}
    return [leak.to_json() for leak in shared_videos(datasets, (split,))]


def score_checkpoint(
    config: Config, folder: RunFolder, sources: Sources, shards: SplitShards, step: int
) -> tuple[Task, Scored]:
    """Load a checkpoint's weights into a model and predict a split, in this process."""
    # The checkpoint contains all weights, so the pretrained ones are not needed.
    task = build(config, sources, weights=False)
    task.step.load_state_dict(checkpoint_at(folder.checkpoints, step).weights())
    # A run trained on GPUs can be scored on a machine without one.
    distributed = Distributed(device=choose_device(config.trainer.use_gpu and "auto"))
    # fp32 whatever the training precision, to score the student as it is exported.
    engine = TorchEngine(task.step, task.parameter_groups(), config.optimizer, distributed, torch.float32)
    windows = LocalWindows(shards)
    try:
        return task, score_split(task, engine, shards, windows, config, distributed)
    finally:
        windows.close()


def clip_facts(shards: SplitShards, scored: Scored) -> ClipFacts:
    """Read the texts and ids of scored clips, in their order."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for number, shard in shards.shards:
        path = shards.sources.datasets[number].shard_path(shard)
        with BoundedParquet(pa.BufferReader(shard_content(path, shard.bytes)), path) as file:
            table = file.read(["source", "clip_id", "video_id", "text"])
        name = shards.sources.names[number]
        for source, clip_id, video_id, text in zip(*(c.to_pylist() for c in table.columns), strict=True):
            found[name or source, clip_id] = (video_id, text)
    rows = [found[name] for name in scored.names]
    return ClipFacts(
        clip_id=[clip_id for _, clip_id in scored.names],
        video_id=[video_id for video_id, _ in rows],
        source=[source for source, _ in scored.names],
        text=[text for _, text in rows],
    )


def write_predictions(path: Location, facts: ClipFacts, scored: Scored) -> None:
    """Write one row per clip: its ids, text, label and every prediction."""
    columns = {
        "clip_id": pa.array(facts.clip_id),
        "video_id": pa.array(facts.video_id),
        "source": pa.array(facts.source),
        "text": pa.array(facts.text),
        "label": pa.array(scored.label),
        **{name: _column(values) for name, values in scored.predictions.items()},
    }
    with atomic_file(path) as partial:
        pq.write_table(pa.table(columns), partial)


def _column(values: FloatArray) -> pa.Array:
    """Numbers with NaN as null, [R]; or a list for each clip, [R, ...]."""
    if values.ndim == 1:
        return pa.array(values, from_pandas=True)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values[0].size)

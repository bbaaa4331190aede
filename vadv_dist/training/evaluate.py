"""Score the best checkpoint of a run on a split; nothing else may open the test split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from vadv_dist.config import Config
from vadv_dist.cuda import prepare_cuda
from vadv_dist.data.context import separated, separator_of
from vadv_dist.data.reading import read_columns
from vadv_dist.data.schema import SPLITS
from vadv_dist.data.shared_videos import shared_videos
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.data.windows import LocalWindows
from vadv_dist.engines.distributed import Distributed, choose_device
from vadv_dist.engines.torch_engine import TorchEngine
from vadv_dist.errors import UserError
from vadv_dist.formats.weights import require_same_tensors, shapes_of
from vadv_dist.inference.token_counts import count_tokens
from vadv_dist.runs.checkpoint import checkpoint_at, list_checkpoints
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Evaluation, RunResult, SourceScores, Values, finite
from vadv_dist.runs.trained_on import find_again
from vadv_dist.storage import Location, atomic_file, write_json
from vadv_dist.tasks import Scorer, Task, build
from vadv_dist.tasks.base import FloatArray
from vadv_dist.training.scoring import Scored, metrics_by_source, score_split


def evaluate_run(
    run: str | Location,
    split: str,
    *,
    data: Sequence[str] = (),
    encoder: str | None = None,
    out: Location | None = None,
) -> Evaluation:
    """Evaluate a run's best checkpoint and write `evaluation-<split>.json` and `predictions-<split>.parquet`.

    Args:
        run: its folder.
        split: a split of the data sets that the run was trained on, which are identified by fingerprint.
        data, encoder: new locations of its data sets and its encoder, if they were moved.
        out: the folder to write to; None is the run's.
    Returns:
        the evaluation, as written.
    Raises:
        UserError: no such run or split, the run is not complete, or its data or encoder is not found.
        MachineError: the checkpoint is damaged.
    """
    require_split(split)
    folder, config, result = _complete(run, data, encoder)
    sources = Sources.open(config)
    shards = sources.split(split)
    task, scored = score_best(config, folder, sources, shards, result)
    clips = columns_of(shards, scored)
    evaluation = evaluation_of(
        task,
        scored,
        sources,
        run=config.run.name,
        split=split,
        step=result.best_step,
        dropped=shards.dropped,
        texts_cut=_texts_cut(task, shards, clips["text"], config.data.max_tokens),
        leaks=leaks_of(sources, split),
    )
    out = folder.root if out is None else out
    write_predictions(out / f"predictions-{split}.parquet", clips, scored)
    write_json(out / f"evaluation-{split}.json", evaluation.to_json())
    return evaluation


def _texts_cut(task: Task, shards: SplitShards, words: Sequence[str], max_tokens: int) -> dict[str, Any]:
    """How many texts are truncated, of those whose words are given; with context, of the readings of the split."""
    if task.tokenizer is None:
        return {}
    texts = separated(shards.texts(), separator_of(task.tokenizer)) if shards.sources.context else words
    return count_tokens(task.tokenizer, texts, max_tokens).to_json()


def _complete(
    run: str | Location, data: Sequence[str] = (), encoder: str | None = None
) -> tuple[RunFolder, Config, RunResult]:
    """A complete run, its configuration with the current locations of its data and encoder, and its result."""
    folder = RunFolder.open(run)
    result = folder.result()
    trained_on = folder.trained_on()
    if result is None:
        raise UserError(f"{folder.root} is not complete (no result.json). Run its `vadv train` again to resume it.")
    if trained_on is None:
        raise UserError(f"{folder.trained_on_path} is missing, so the run's training data is unknown. Train it again.")
    return folder, find_again(folder.config(), trained_on, data, encoder), result


def evaluate_checkpoints(run: str | Location, split: str) -> dict[int, Values]:
    """Score the student of every kept checkpoint on a split, so that a table can show what choosing there would give.

    Args:
        run: folder of a complete run; `trainer.keep_best` is the number of checkpoints that it kept.
        split: a split of its data sets.
    Returns:
        metrics of the student by step. The best checkpoint is scored as by `evaluate_run`, the others without its
        calibration.
    Raises:
        UserError: see `evaluate_run`.
    """
    require_split(split)
    folder, config, result = _complete(run)
    sources = Sources.open(config)
    shards = sources.split(split)
    found: dict[int, Values] = {}
    for checkpoint in list_checkpoints(folder.checkpoints):
        is_best = checkpoint.step == result.best_step
        chosen = replace(result, best_step=checkpoint.step, calibration=result.calibration if is_best else None)
        task, scored = score_best(config, folder, sources, shards, chosen)
        metrics = task.metrics(scored.predictions, scored.label)[task.description.student.name]
        found[checkpoint.step] = finite(metrics)
    return found


def evaluation_of(scorer: Scorer, scored: Scored, sources: Sources, **facts: Any) -> Evaluation:
    """Metrics of scored clips, all and by source, as a record; `facts` are its other fields."""
    metrics = scorer.metrics(scored.predictions, scored.label)
    counts = Counter(source for source, _ in scored.names)
    by_source = metrics_by_source(scorer, scored)
    return Evaluation(
        rows=len(scored.label),
        data=[{"uri": str(d.root.resolve()), "fingerprint": d.manifest.fingerprint} for d in sources.datasets],
        task=scorer.description,
        labels=scorer.labels,
        absent=scorer.absent(scored.label),
        metrics=finite(metrics),
        remarks=scorer.remarks(metrics),
        sources={name: SourceScores(rows=counts[name], metrics=finite(m)) for name, m in by_source.items()},
        **facts,
    )


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


def score_best(
    config: Config, folder: RunFolder, sources: Sources, shards: SplitShards, result: RunResult
) -> tuple[Task, Scored]:
    """Load the best checkpoint's weights into a model, with the student's calibration, and predict a split here."""
    # The checkpoint contains all weights, so the pretrained ones are not needed.
    task = build(config, sources, weights=False)
    checkpoint = checkpoint_at(folder.checkpoints, result.best_step)
    weights = checkpoint.weights()
    require_same_tensors(shapes_of(task.step.state_dict()), shapes_of(weights), checkpoint.path)
    task.step.load_state_dict(task.calibrated(weights, result.calibration))
    # A run trained on GPUs can be scored on a machine without one.
    distributed = Distributed(device=choose_device(config.trainer.use_gpu and "auto"))
    # fp32 whatever the training precision, to score the student as it is exported and as `vadv predict` runs it.
    prepare_cuda(distributed.device)
    engine = TorchEngine(task.step, task.parameter_groups(), config.optimizer, distributed, torch.float32)
    windows = LocalWindows(shards)
    try:
        return task, score_split(task, engine, shards, windows, config, distributed)
    finally:
        windows.close()


def columns_of(shards: SplitShards, scored: Scored) -> dict[str, list[str]]:
    """Ids and texts of scored clips in their order: `clip_id`, `video_id`, `source` and `text`."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for number, shard in shards.shards:
        table = read_columns(shards.sources.datasets[number], shard, ["source", "clip_id", "video_id", "text"])
        name = shards.sources.names[number]
        for source, clip_id, video_id, text in zip(*(c.to_pylist() for c in table.columns), strict=True):
            found[name or source, clip_id] = (video_id, text)
    rows = [(clip_id, *found[source, clip_id], source) for source, clip_id in scored.names]
    return {name: [row[place] for row in rows] for place, name in enumerate(("clip_id", "video_id", "text", "source"))}


def write_predictions(path: Location, clips: Mapping[str, list[str]], scored: Scored) -> None:
    """Write one row per clip: its ids, text, label and every prediction."""
    predictions = {name: _column(values) for name, values in scored.predictions.items()}
    with atomic_file(path) as partial:
        pq.write_table(pa.table({**clips, "label": pa.array(scored.label), **predictions}), partial)


def _column(values: FloatArray) -> pa.Array:
    """Numbers with NaN as null, [R]; or a list for each clip, [R, ...]."""
    if values.ndim == 1:
        return pa.array(values, from_pandas=True)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values[0].size)

"""What `vadv evaluate` left in a run about its student: texts, labels and predictions, and intervals over clips."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadv_dist.evaluation import classification
from vadv_dist.evaluation.label_scale import LabelScale
from vadv_dist.evaluation.retrieval import precision_of_clips, score_of_precisions
from vadv_dist.evaluation.seeds_and_clips import IntArray, clip_resamples, resampled_metrics, seeds_and_clips
from vadv_dist.formats.parquet import BoundedParquet
from vadv_dist.storage import Location

Array = npt.NDArray[Any]
Intervals = dict[str, tuple[float, float]]

# The same files give the same intervals.
_SEED = 0


@dataclass(frozen=True)
class ScoredClips:
    """The scored clips of a split.

    Attributes:
        split: its name.
        text: of each clip, [R]; empty where there is none.
        label: [R].
        prediction: the student's: values [R], probabilities of classes [R, C], or embeddings of audio and visual
            [R, 2, E].
    """

    split: str
    text: list[str]
    label: Array
    prediction: Array


def scored_clips(run: Location, split: str, evaluation: Mapping[str, Any]) -> ScoredClips | None:
    """Read the predictions behind an evaluation; None if they are missing or of an unknown form.

    Args:
        run: the run's folder.
        split: the evaluated split.
        evaluation: contents of `evaluation-<split>.json`.
    """
    path = run / f"predictions-{split}.parquet"
    outputs = evaluation.get("task", {}).get("outputs", [])
    if not outputs or not path.is_file():
        return None
    output = outputs[0]
    column = str(output.get("column", output.get("name")))
    try:
        with BoundedParquet(pa.BufferReader(path.read_bytes()), path) as file:
            table = file.read(["text", "label", column])
    except (OSError, pa.ArrowException, KeyError):
        return None
    flat, width = table[column].combine_chunks(), 1
    if pa.types.is_fixed_size_list(flat.type):
        width = int(flat.type.list_size)
        flat = flat.flatten()
    prediction = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    if width > 1:
        of_classes = output.get("holds") == "probabilities"
        prediction = prediction.reshape((len(table), width) if of_classes else (len(table), 2, width // 2))
    texts = table["text"].cast(pa.string()).fill_null("").to_pylist()
    return ScoredClips(split, texts, table["label"].to_numpy().astype(np.float64), prediction)


def intervals(clips: ScoredClips, labels: LabelScale | None, metrics: Mapping[str, float | None]) -> Intervals:
    """95 % intervals of a student's metrics over the clips of a split.

    Args:
        clips: the clips and their predictions.
        labels: range and threshold of the labels; None for classes.
        metrics: the split's metrics. If the predictions do not give these, they are of another student.
    Returns:
        lower and upper end by metric; nothing for predictions of another student.
    """
    score = _score(clips, labels)
    rows = np.arange(len(clips.label))
    mine = score(rows)
    shared = {key: value for key, value in mine.items() if metrics.get(key) is not None and np.isfinite(value)}
    if not shared or any(abs(value - float(metrics[key] or 0.0)) > 1e-4 for key, value in shared.items()):
        return {}
    resampled = resampled_metrics(score, clip_resamples(len(rows), _SEED))
    found: Intervals = {}
    for key, value in shared.items():
        interval = seeds_and_clips([value], resampled[key][:, None], num_clips=len(rows))
        if interval is not None:
            found[key] = (interval.low, interval.high)
    return found


def _score(clips: ScoredClips, labels: LabelScale | None) -> Callable[[IntArray], Mapping[str, float]]:
    label, prediction = clips.label, clips.prediction
    if labels is not None:
        return lambda rows: labels.score(prediction[rows], label[rows])
    if prediction.ndim == 2:
        return lambda rows: classification.score(prediction[rows], label[rows])
    precisions = precision_of_clips(prediction, label)
    return lambda rows: score_of_precisions({name: values[rows] for name, values in precisions.items()}, label[rows])

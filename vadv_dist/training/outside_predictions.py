"""Score predictions that another program made for a data set, under the same metrics as a run's student."""

from pathlib import Path

import numpy as np

from vadv_dist.data.readers.prediction_file import Prediction, read_predictions
from vadv_dist.data.schema import SPLITS
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.errors import UserError, did_you_mean
from vadv_dist.runs.records import Evaluation
from vadv_dist.storage import Location, write_json
from vadv_dist.tasks import PredictedLabels
from vadv_dist.training.evaluate import columns_of, evaluation_of, leaks_of, require_split, write_predictions
from vadv_dist.training.scoring import Scored


def evaluate_predictions(file: Path, sources: Sources, split: str, out: Location, *, name: str) -> Evaluation:
    """Score a file of predictions, and write the two files that `evaluate_run` writes for a run.

    Args:
        file: see `score_predictions`.
        sources: see `score_predictions`.
        split: see `score_predictions`.
        out: folder of `evaluation-<split>.json` and `predictions-<split>.parquet`.
        name: name of what made the predictions.
    Returns:
        the evaluation, as written.
    Raises:
        UserError: see `score_predictions`.
    """
    evaluation, scored = score_predictions(file, sources, split, name=name)
    write_predictions(out / f"predictions-{split}.parquet", columns_of(_shards(sources, split), scored), scored)
    write_json(out / f"evaluation-{split}.json", evaluation.to_json())
    return evaluation


def score_predictions(file: Path, sources: Sources, split: str, *, name: str) -> tuple[Evaluation, Scored]:
    """Score a CSV file of predictions on a split.

    Every clip of the split needs a prediction. Rows for clips of other splits are left out, so that one file can hold
    all splits.

    Args:
        file: `clip_id` and `prediction`, in label units or the name of a class; it may have `split`, which must agree
            with the data, and a column `probability_<class>` of every class.
        sources: the data sets that were predicted, which share no clip id.
        split: the split to score.
        name: name of what made the predictions, for the record.
    Returns:
        the record that `vadv evaluate` gives, in which the predictions are the student's, and the clips in their order.
    Raises:
        UserError: the file is not such a CSV; it has a clip that no split has, lacks one, or names another split than
            the data sets; or two data sets share a clip id.
    """
    require_split(split)
    scorer = PredictedLabels(sources)
    predictions = read_predictions(file, scorer.kind.classes)
    split_of = _splits_of_clips(sources)
    _require_known(predictions, split_of)
    shards = _shards(sources, split)
    names = _names(sources, split)
    missing = [clip_id for _, clip_id in names if clip_id not in predictions]
    if missing:
        raise UserError(
            f"{file} has no prediction for {len(missing):,} of the {len(names):,} {split} clips (the first is "
            f"{missing[0]!r}). Predict every clip of the split."
        )
    values = np.array([predictions[clip_id].values for _, clip_id in names], np.float32)
    if not scorer.kind.classes:
        values = values[:, 0]
    label_R = np.array([value for d in sources.datasets for value in d.column(split, "label")], np.float32)
    scored = Scored(names, label_R, scorer.predictions(values))
    evaluation = evaluation_of(
        scorer,
        scored,
        sources,
        run=name,
        split=split,
        dropped=shards.dropped,
        texts_cut={},
        leaks=leaks_of(sources, split),
    )
    return evaluation, scored


def _shards(sources: Sources, split: str) -> SplitShards:
    return Sources(sources.datasets, (), sources.names).split(split, missing="mask")


def _names(sources: Sources, split: str) -> list[tuple[str, str]]:
    """(source, clip id) of each clip of a split."""
    return [
        (name or source, clip_id)
        for name, dataset in zip(sources.names, sources.datasets, strict=True)
        for source, clip_id in zip(dataset.column(split, "source"), dataset.column(split, "clip_id"), strict=True)
    ]


def _splits_of_clips(sources: Sources) -> dict[str, str]:
    """Split of each clip, over all data sets.

    Raises:
        UserError: two data sets have a clip of the same id.
    """
    found: dict[str, str] = {}
    for dataset in sources.datasets:
        for split in SPLITS:
            for clip_id in dataset.column(split, "clip_id"):
                if clip_id in found:
                    raise UserError(
                        f"{dataset.root} has a clip {clip_id!r}, and so has another source, so its prediction is "
                        "ambiguous. Score the predictions on one data set at a time."
                    )
                found[clip_id] = split
    return found


def _require_known(predictions: dict[str, Prediction], split_of: dict[str, str]) -> None:
    for clip_id, prediction in predictions.items():
        split = split_of.get(clip_id)
        if split is None:
            raise UserError(
                f"{prediction.where}: the data set has no clip {clip_id!r}.{did_you_mean(clip_id, split_of)} Use the "
                "ids of its clip_id column."
            )
        if prediction.split not in (None, split):
            raise UserError(
                f"{prediction.where}: clip {clip_id!r} is in {split}, not in {prediction.split}. Predictions for other "
                "splits than the data set's cannot be compared."
            )

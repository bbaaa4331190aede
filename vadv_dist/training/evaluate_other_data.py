"""Score the student of a run or an export on a data set that it was not trained on.

Only the student is scored, as deployed, so the data set needs labels and what the student reads. The result is stored
under the data set's name and never replaces a run's own evaluation; for an export it is only returned.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from vadv_dist.data.columns import tensor_chunks
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader
from vadv_dist.data.schema import FeatureSpec
from vadv_dist.data.shard_list import SourceShards
from vadv_dist.data.shared_videos import SharedVideos
from vadv_dist.data.sources import Sources, SplitShards
from vadv_dist.errors import UserError
from vadv_dist.inference.manifest import resolve_student
from vadv_dist.runs.folder import RunFolder
from vadv_dist.runs.records import Evaluation
from vadv_dist.runs.trained_on import SourceIdentity, TrainedOn
from vadv_dist.storage import Location, local_copy, location, write_json
from vadv_dist.tasks import StudentScorer, open_student
from vadv_dist.tasks.base import FloatArray
from vadv_dist.training.evaluate import columns_of, evaluate_run, evaluation_of, require_split, write_predictions
from vadv_dist.training.scoring import Scored

# Folder in a run for evaluations on other data: a JSON document and a table of predictions each.
OTHER_DATA = "other-data"


def evaluate(
    source: str | Location,
    split: str,
    *,
    data: Iterable[str] = (),
    encoder: str | None = None,
    out: str | Location | None = None,
) -> Evaluation:
    """Score a run or an export.

    Args:
        source: a run, or a folder written by `vadv export`.
        split: the split to score.
        data: data sets to score on; empty for those that the run was trained on. If the fingerprints are those of the
            run's own data sets, these are taken as their new locations.
        encoder: new location of a run's encoder.
        out: the folder to write to; None is the run's, or nothing for an export.
    Returns:
        the evaluation; on other data, with the path of its document if one was written.
    Raises:
        UserError: see `evaluate_run`; or an export without data, several other data sets, or another label range.
    """
    require_split(split)
    given = list(data)
    place, target = location(source), None if out is None else location(out)
    trained_on = RunFolder.open(place).trained_on() if (place / "config.yaml").is_file() else None
    datasets = [Dataset.open(uri) for uri in given]
    if not given or (trained_on is not None and _are_its_own(datasets, trained_on)):
        if not (place / "config.yaml").is_file() and (place / "vadv_export.json").is_file():
            raise UserError(f"{place} is an exported student, not a run. Give the data set to score it on: --data URI.")
        return evaluate_run(place, split, data=given, encoder=encoder, out=target)
    if encoder is not None:
        raise UserError("--encoder is only used with a run's own data. Remove it to score another data set.")
    if len(datasets) > 1:
        raise UserError("Several data sets were given, and they are not those of the run. Score them one at a time.")
    return score_on(place, datasets[0], split, target)


def _are_its_own(datasets: list[Dataset], trained_on: TrainedOn) -> bool:
    """Whether these are exactly the data sets that a run was trained on, in any order."""
    found = [SourceIdentity.of(dataset) for dataset in datasets]
    return len(found) == len(trained_on.data) and all(any(own.is_as(f) for f in found) for own in trained_on.data)


def score_on(source: Location, dataset: Dataset, split: str, out: Location | None = None) -> Evaluation:
    """Score the student of a run or an export on a data set; see `evaluate`."""
    with local_copy(resolve_student(source)) as folder:
        sources = Sources([dataset], (), (None,))
        student = open_student(folder, sources, source)
        sources = replace(sources, context=student.context)
        trained = _trained_on(source, student.data)
    shards = SplitShards(sources, split, SourceShards((dataset.split(split),)), dropped=0)
    scored = _score(student, shards)
    evaluation = evaluation_of(
        student,
        scored,
        sources,
        run=student.name,
        split=split,
        dropped=0,
        texts_cut=student.texts_cut,
        leaks=[leak for own in trained for leak in _leaks(own, dataset, split)],
        other_data=True,
    )
    if out is None and (source / "config.yaml").is_file():
        out = source / OTHER_DATA
    if out is None:
        return evaluation
    stem = f"{evaluation_name(dataset)}-{split}"
    write_predictions(out / f"{stem}.parquet", columns_of(shards, scored), scored)
    write_json(out / f"{stem}.json", evaluation.to_json())
    return replace(evaluation, file=str(out / f"{stem}.json"))


def evaluation_name(dataset: Dataset) -> str:
    """A readable name that is unique to the data set's content and labels."""
    identity = SourceIdentity.of(dataset)
    digest = hashlib.sha256(json.dumps([identity.fingerprint, dict(identity.label)]).encode()).hexdigest()[:12]
    words = re.sub(r"[^A-Za-z0-9_.]+", "-", dataset.root.resolve().name)[:40].strip("-.")
    return f"{words}-{digest}" if words else digest


def _score(student: StudentScorer, shards: SplitShards) -> Scored:
    """Read and verify a split's clips shard by shard, and predict them."""
    (dataset,) = shards.sources.datasets
    reader = ShardReader(dataset, student.reads)
    names: list[tuple[str, str]] = []
    labels: list[FloatArray] = []
    found: dict[str, list[FloatArray]] = {}
    for number, (_, shard) in enumerate(shards.shards):
        table = reader.read(shard)
        names += zip(table.column("source").to_pylist(), table.column("clip_id").to_pylist(), strict=True)
        labels.append(table.column("label").to_numpy().astype(np.float32))
        features = {name: _values(table.column(name), spec) for name, spec in reader.specs.items()}
        texts = shards.readings([number]) if student.context else table.column("text").to_pylist()
        for column, values in student.predict(texts, features).items():
            found.setdefault(column, []).append(values)
    return Scored(names, np.concatenate(labels), {column: np.concatenate(parts) for column, parts in found.items()})


def _values(column: pa.ChunkedArray, spec: FeatureSpec) -> FloatArray:
    """A feature of some clips, [R, ...]; NaN where a clip lacks it."""
    parts = []
    for values, present in tensor_chunks(column, spec):
        part = values.astype(np.float32)
        part[~present] = np.nan
        parts.append(part)
    return np.concatenate(parts)


def _trained_on(source: Location, card_data: Iterable[Any]) -> list[SourceIdentity]:
    """The data sets that a student was trained on, from its run or its export."""
    if (source / "config.yaml").is_file() and (trained_on := RunFolder.open(source).trained_on()) is not None:
        return list(trained_on.data)
    return [
        SourceIdentity(
            str(entry.get("place") or entry.get("uri") or entry.get("name")),
            str(entry.get("fingerprint")),
            entry.get("label") or {},
        )
        for entry in card_data
    ]


def _opened(identity: SourceIdentity) -> Dataset | None:
    """A data set that a student was trained on, if it is still at its recorded location."""
    try:
        found = Dataset.open(identity.place)
    except UserError:
        return None
    return found if found.manifest.fingerprint == identity.fingerprint else None


def _leaks(own: SourceIdentity, dataset: Dataset, split: str) -> list[dict[str, Any]]:
    """Overlap between the scored clips and the student's training data, as far as it is known."""
    scored = dataset.root.resolve()
    is_same = own.fingerprint == dataset.manifest.fingerprint
    if is_same and split != "test":
        use = "trained on" if split == "train" else "selected on"
        told = f"The student was {use} the same clips, the {split} split of {scored}."
        return [{"told": told, "why": "Its scores do not carry over to new clips."}]
    trained = dataset if is_same else _opened(own)
    if trained is None:
        told = f"{own} is not found, so it is unknown whether the student was trained on videos of {scored}."
        return [{"told": told, "why": "If it was, known speakers raise its scores."}]
    judged = Counter(dataset.column(split, "video_id"))
    videos = sorted(judged.keys() & set(trained.column("train", "video_id")))
    if not videos:
        return []
    clips = sum(judged[video] for video in videos)
    return [SharedVideos(str(trained.root), "train", str(scored), split, videos, clips).to_json()]

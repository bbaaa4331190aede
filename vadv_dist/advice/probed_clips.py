"""The clips that probes read: words, labels and pooled features of the train and valid splits, never of test.

Shape letters: R clips, D pooled width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.data.classes import class_names
from vadv_dist.data.columns import tensor_chunks
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class ProbedClips:
    """Clips with every feature of the teacher.

    Attributes:
        text, video_id: of each clip, R each.
        label: in label units, or numbers of classes, [R].
        features: means over frames and tokens of all features, side by side, [R, D].
        available: number of clips of the two splits, of which `R` were drawn.
        lacking: number of drawn clips that were left out because they lack a feature.
        classes: names of the classes; empty if labels are numbers.
    """

    text: list[str]
    video_id: list[str]
    label: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32]
    available: int
    lacking: int
    classes: tuple[str, ...] = ()


def read_clips(dataset: Dataset, features: Sequence[str], *, max_clips: int, seed: int) -> ProbedClips:
    """Read a random sample of the train and valid clips; one shard is in memory at a time.

    Args:
        dataset: the data set.
        features: features of the teacher.
        max_clips: number of clips to draw at most.
        seed: seed of the draw.
    Raises:
        UserError: a shard is missing or damaged.
    """
    reader = ShardReader(dataset, tuple(features))
    shards = [shard for split in SPLITS for shard in dataset.manifest.splits.get(split, [])]
    available = sum(shard.rows for shard in shards)
    drawn_R = np.zeros(available, bool)
    drawn_R[np.random.default_rng(seed).permutation(available)[:max_clips]] = True
    text: list[str] = []
    video_id: list[str] = []
    label, pooled = [], []
    first = lacking = 0
    for shard in shards:
        table = reader.read(shard)
        mine = drawn_R[first : first + shard.rows]
        first += shard.rows
        columns, present = [], np.ones(shard.rows, bool)
        for name, spec in reader.specs.items():
            chunks = tensor_chunks(table.column(name), spec)
            axes = tuple(range(1, len(spec.shape)))
            columns.append(np.concatenate([values.mean(axis=axes, dtype=np.float32) for values, _ in chunks]))
            present &= np.concatenate([there for _, there in chunks])
        kept = np.flatnonzero(mine & present)
        lacking += int((mine & ~present).sum())
        label.append(table.column("label").to_numpy()[kept])
        pooled.append(np.concatenate(columns, axis=1)[kept])
        for target, column in ((text, "text"), (video_id, "video_id")):
            target += table.column(column).take(kept).to_pylist()
    labels = dataset.manifest.label
    return ProbedClips(
        text,
        video_id,
        np.concatenate(label).astype(np.float64),
        np.concatenate(pooled),
        available,
        lacking,
        tuple(class_names(labels.classes, labels.num_classes)) if labels.is_class else (),
    )

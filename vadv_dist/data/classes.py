"""Classes of data sets: their names, and which have no clips in a split."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from vadv_dist.data.dataset import DatasetManifest
from vadv_dist.data.reading import read_columns
from vadv_dist.data.schema import SPLITS
from vadv_dist.data.share import TrainShare
from vadv_dist.data.sources import SplitShards
from vadv_dist.errors import UserError

_MAX_LISTED = 5
# Number of clips of each class that has some, by split.
Counts = Mapping[str, Mapping[int, int]]


def class_names(names: Sequence[str], count: int) -> list[str]:
    """A name for each of `count` classes; those that the data set does not name have their number."""
    return [class_name(names, i) for i in range(count)]


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class, or its number."""
    return names[index] if index < len(names) else f"class {index}"


def listed(names: Sequence[str]) -> str:
    """Some names, as a part of a sentence."""
    more = f" and {len(names) - _MAX_LISTED:,} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def counted_classes(count: int) -> str:
    """A number of classes with its verb, as the start of a sentence."""
    return "1 class has" if count == 1 else f"{count:,} classes have"


def unknown_classes(counts: Counts, split: str) -> list[int]:
    """Classes with clips in a split, but none in train: nothing can be learned about them."""
    return sorted(_with_clips(counts, split) - _with_clips(counts, "train"))


def unseen_classes(counts: Counts, split: str) -> list[int]:
    """Classes with clips in train, but none in a split that has clips: its score says nothing about them."""
    mine = _with_clips(counts, split)
    return sorted(_with_clips(counts, "train") - mine) if mine else []


def class_counts(manifests: Iterable[DatasetManifest]) -> dict[str, Counter[int]]:
    """Clips per class and split over several data sets, as far as `dataset.json` counts them.

    A split that one of them does not count is left out.
    """
    counts: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
    for manifest in manifests:
        for split in [split for split in counts if manifest.rows(split)]:
            statistics = manifest.statistics.get(split)
            if statistics is None or statistics.label_histogram is None:
                del counts[split]
            else:
                counts[split].update(dict(enumerate(statistics.label_histogram.counts)))
    return counts


def require_classes_in_train(train: SplitShards) -> None:
    """Refuse data sets in which a class has clips in valid or test, but none in train that can be trained on.

    Args:
        train: the train split of a run's data sets, which have the same classes.
    Raises:
        UserError: there is such a class.
    """
    datasets = train.sources.datasets
    counts, where = class_counts(d.manifest for d in datasets), ", ".join(str(d.root) for d in datasets)
    if "train" not in counts or not train.sources.label.is_class:
        return
    _require_train_clips(train, counts, f"of {where} but none in train", "train clips")
    lacked = " or ".join(train.sources.needed)
    why = f"of {where}, but every train clip lacks {lacked} features"
    _require_train_clips(train, {**counts, "train": complete_counts(train, counts["train"])}, why, "complete clips")


def _require_train_clips(train: SplitShards, counts: Counts, why: str, needed: str) -> None:
    for split in SPLITS[1:]:
        unknown = unknown_classes(counts, split) if split in counts else []
        if unknown:
            names = listed([class_name(train.sources.label.classes, one) for one in unknown])
            raise UserError(
                f"{counted_classes(len(unknown))} clips in the {split} split {why}, so nothing "
                f"can be learned about {'it' if len(unknown) == 1 else 'them'}: {names}. Add {needed} of "
                f"{'this class' if len(unknown) == 1 else 'these classes'}, or leave out the {split} clips."
            )


def require_classes_in_share(
    manifests: Sequence[DatasetManifest], labels: Iterable[npt.ArrayLike], share: TrainShare
) -> None:
    """Refuse a share of the training clips without clips of a class that train has.

    Args:
        manifests: the data sets of a run, which have the same classes.
        labels: classes of the clips in use of each source.
        share: the share.
    Raises:
        UserError: there is such a class.
    """
    found = np.concatenate([np.asarray(part) for part in labels]).astype(int)
    lost = sorted(_with_clips(class_counts(manifests), "train") - set(found.tolist()))
    if lost:
        names = listed([class_name(manifests[0].label.classes, one) for one in lost])
        raise UserError(
            f"data.train_share is {share.share:g}, which leaves {len(found):,} train clips, and "
            f"{counted_classes(len(lost))} none of them: {names}. Raise data.train_share, or set another "
            "data.train_share_seed."
        )


def complete_counts(split: SplitShards, counts: Counter[int]) -> Counter[int]:
    """Number of clips of each class that have every feature that the model reads.

    Shards are read only if so many clips are incomplete that a class may have no others.

    Args:
        split: the split.
        counts: number of its clips of each class, complete or not.
    """
    needed = split.sources.needed
    lacking = [(number, shard) for number, shard in split.shards if shard.rows_lacking(needed)]
    if sum(shard.rows_lacking(needed) for _, shard in lacking) < min((+counts).values(), default=0):
        return counts
    counts = counts.copy()
    for number, shard in lacking:
        table = read_columns(split.sources.datasets[number], shard, ["label", *needed])
        is_complete = np.logical_and.reduce([pc.is_valid(table.column(name)).to_numpy() for name in needed])
        counts.subtract(table.column("label").to_numpy()[~is_complete].astype(int).tolist())
    return +counts


def class_notes(train: SplitShards, valid: SplitShards) -> list[str]:
    """Warnings for the log of a run about classes on which checkpoints are not chosen."""
    counts = class_counts(dataset.manifest for dataset in train.sources.datasets)
    if not train.sources.label.is_class or not {"train", "valid"} <= counts.keys():
        return []
    if valid.dropped:
        counts["valid"] = complete_counts(valid, counts["valid"])
    unseen = unseen_classes(counts, "valid")
    if not unseen:
        return []
    names = listed([class_name(train.sources.label.classes, one) for one in unseen])
    which = " complete" if valid.dropped else ""
    return [
        f"warning: {counted_classes(len(unseen))} no{which} clips in valid, so checkpoints are chosen without: {names}"
    ]


def _with_clips(counts: Counts, split: str) -> set[int]:
    return {one for one, count in counts.get(split, {}).items() if count}

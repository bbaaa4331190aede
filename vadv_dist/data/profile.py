"""What the rows of a data set are like: labels and lengths by split and source, repeated texts, shared videos."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import read_columns
from vadv_dist.data.repeated_texts import MIN_REPEATED_WORDS, text_key
from vadv_dist.data.schema import SPLITS, LabelSpec

_BINS = 12
_EXAMPLES = 5
_MAX_SHOWN = 160


@dataclass
class GroupProfile:
    """The clips of one split, or of one source in it.

    Attributes:
        labels: number of clips in each bin of `DataProfile.bins`, or of each class.
        label_sum: sum of the labels.
        words: number of clips by number of words.
        videos: their videos.
        examples: a few clips, each as (id, label, text).
    """

    labels: list[int]
    label_sum: float = 0.0
    words: Counter[int] = field(default_factory=Counter)
    videos: set[str] = field(default_factory=set)
    examples: list[tuple[str, float, str]] = field(default_factory=list)

    @property
    def clips(self) -> int:
        """Number of clips."""
        return sum(self.labels)


@dataclass
class DataProfile:
    """A data set, read once.

    Attributes:
        bins: edges of the bins of labels; for classes, their numbers and one more.
        groups: by split and source.
        splits: by split.
        repeated: number of texts that occur more than once within each split.
        shared: for each pair of splits, clips of the second one whose text is in the first one too.
        shared_examples: some such texts.
        shared_videos: for each pair of splits, the videos in both.
    """

    bins: list[float]
    groups: dict[tuple[str, str], GroupProfile] = field(default_factory=dict)
    splits: dict[str, GroupProfile] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    shared: dict[tuple[str, str], int] = field(default_factory=dict)
    shared_examples: list[str] = field(default_factory=list)
    shared_videos: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        """Names of the sources."""
        return sorted({source for _, source in self.groups})


def profile_dataset(uri: str | Path) -> DataProfile:
    """Read the words and labels of a data set; memory holds a hash per clip.

    Texts are compared without case and space; those of fewer than four words are not.

    Raises:
        UserError: there is no data set, or a shard cannot be read.
    """
    dataset = Dataset.open(uri)
    label = dataset.manifest.label
    profile = DataProfile(_edges(label))
    texts: dict[str, Counter[int]] = {}
    for split in (name for name in SPLITS if name in dataset.manifest.splits):
        whole = profile.splits[split] = _group(profile)
        found = texts[split] = Counter()
        every = max(1, dataset.manifest.rows(split) // _EXAMPLES)
        number = 0
        for shard in dataset.manifest.shards(split):
            table = read_columns(dataset, shard, ["clip_id", "video_id", "source", "text", "label", "num_words"])
            for clip, video, source, text, value, words in zip(*(c.to_pylist() for c in table.columns), strict=True):
                mine = profile.groups.setdefault((split, source), _group(profile))
                place = _bin(value, label)
                for group in (whole, mine):
                    group.labels[place] += 1
                    group.label_sum += value
                    group.words[words] += 1
                    group.videos.add(video)
                if number % every == 0 and len(whole.examples) < _EXAMPLES:
                    whole.examples.append((clip, value, text[:_MAX_SHOWN]))
                number += 1
                if words >= MIN_REPEATED_WORDS:
                    key = text_key(text)
                    found[key] += 1
                    if len(profile.shared_examples) < _EXAMPLES and found[key] == 1:
                        earlier = [other for other in texts if other != split and key in texts[other]]
                        shown = text[:_MAX_SHOWN]
                        profile.shared_examples += [f"{shown} ({first} and {split})" for first in earlier[:1]]
    for split, found in texts.items():
        profile.repeated[split] = sum(count > 1 for count in found.values())
    for one, other in combinations(texts, 2):
        profile.shared[one, other] = sum(count for key, count in texts[other].items() if key in texts[one])
        profile.shared_videos[one, other] = len(profile.splits[one].videos & profile.splits[other].videos)
    return profile


def _group(profile: DataProfile) -> GroupProfile:
    return GroupProfile([0] * (len(profile.bins) - 1))


def _edges(label: LabelSpec) -> list[float]:
    if label.is_class:
        return [float(number) for number in range(label.num_classes + 1)]
    return [float(edge) for edge in np.linspace(label.low, label.high, _BINS + 1)]


def _bin(value: float, label: LabelSpec) -> int:
    if label.is_class:
        return int(value)
    return min(_BINS - 1, max(0, int((value - label.low) / (label.high - label.low) * _BINS)))

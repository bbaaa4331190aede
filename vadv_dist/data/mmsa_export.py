"""Write a data set as the pickled features that MMSA trains on.

Shape letters: R clips of a split, T frames, N tokens per frame, L steps of a sequence, D width.
"""

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader, clips_of
from vadv_dist.data.schema import FEATURE_AXES, SPLITS, Array, Clip
from vadv_dist.errors import UserError
from vadv_dist.storage import Location, atomic_file

NO_FEATURE = "none"
# MMSA reads whole arrays, and every split must be there.
WORD_WIDTH = 300
_PROTOCOL = 4
_WORDS = {-1: ("Negative", 0), 0: ("Neutral", 1), 1: ("Positive", 2)}

Floats = npt.NDArray[np.float32]


# Turns texts into values [R, L, D], with the same L for all, and token ids, mask and segments [R, 3, L] if it has any.
EmbedTexts = Callable[[Sequence[str]], tuple[Floats, npt.NDArray[np.int64] | None]]


@dataclass(frozen=True)
class MmsaExport:
    """What was written: clips by split, and per modality the data set's feature (or `none`) and shape of a clip."""

    clips: dict[str, int]
    modalities: dict[str, tuple[str, list[int]]]
    has_tokens: bool


def export_mmsa(
    uri: str | Location,
    out: Location,
    *,
    embed: EmbedTexts | None = None,
    vision: str | None = None,
    audio: str | None = None,
    max_tokens: int = 50,
    replace: bool = False,
) -> MmsaExport:
    """Write train, valid and test as one pickle; it exists whole or not at all.

    It takes as much memory as MMSA, which reads the whole file. Frames are the steps of a sequence, and the tokens of a
    frame are averaged. A clip that lacks a feature has zeros of length 1, because MMSA's models do not read empty
    sequences. Columns that MMSA ignores (`clip_id`, `video_id`, `source`, `vision_missing`, `audio_missing`) let
    `vadv ingest mmsa` restore the data set.

    Args:
        uri: a data set of sentiment labels with all three splits.
        out: the file.
        embed: turns texts into sequences; None gives each word a fixed random vector of width `WORD_WIDTH`.
        vision: the feature of `vision`; None takes visual, or face without visual.
        audio: the feature of `audio`; None takes audio, or `none`.
        max_tokens: L of the texts without `embed`; the words after it are cut.
        replace: replace an existing file.
    Raises:
        UserError: the file exists, a split or a feature is missing, or the labels are classes.
    """
    if out.is_dir() or (out.exists() and not replace):
        raise UserError(f"{out} exists. Choose another file, or add --overwrite to replace it.")
    dataset = Dataset.open(uri)
    _require_fitting(dataset)
    feature_of = {
        "vision": _feature(dataset, "--vision", vision, ("visual", "face")),
        "audio": _feature(dataset, "--audio", audio, ("audio",)),
    }
    make = embed or (lambda texts: hashed_words(texts, max_tokens))
    content = {split: _split(dataset, split, feature_of, make) for split in SPLITS}
    with atomic_file(out) as partial, partial.open("wb") as file:
        pickle.dump(content, file, protocol=_PROTOCOL)
    train = content["train"]
    return MmsaExport(
        clips={split: len(columns["id"]) for split, columns in content.items()},
        modalities={
            "text": ("text", list(train["text"].shape[1:])),
            **{name: (feature, list(train[name].shape[1:])) for name, feature in feature_of.items()},
        },
        has_tokens="text_bert" in train,
    )


def hashed_words(texts: Sequence[str], max_tokens: int) -> tuple[Floats, None]:
    """Words as vectors that depend on nothing but the word: drawn from a normal distribution, seeded by its hash."""
    vectors: dict[str, Floats] = {}
    values = np.zeros((len(texts), max_tokens, WORD_WIDTH), np.float32)
    for row, text in enumerate(texts):
        for step, word in enumerate(text.lower().split()[:max_tokens]):
            if word not in vectors:
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
                vectors[word] = np.random.default_rng(seed).standard_normal(WORD_WIDTH, np.float32)
            values[row, step] = vectors[word]
    return values, None


def _require_fitting(dataset: Dataset) -> None:
    if dataset.manifest.label.is_class:
        raise UserError(
            f"{dataset.root} has classes as labels, but MMSA's models predict a sentiment. Give a data set of "
            "sentiment labels."
        )
    missing = [split for split in SPLITS if not dataset.manifest.rows(split)]
    if missing:
        raise UserError(f"{dataset.root} has no {' and no '.join(missing)} clips, but MMSA reads all three splits.")


def _feature(dataset: Dataset, option: str, chosen: str | None, usual: Sequence[str]) -> str:
    has = dataset.manifest.features
    if chosen is None:
        return next((name for name in usual if name in has), NO_FEATURE)
    if chosen != NO_FEATURE and chosen not in has:
        known = ", ".join([*has, NO_FEATURE])
        wrong = "unknown" if chosen not in FEATURE_AXES else "not in the data set"
        raise UserError(f"{option} is {chosen!r}, which is {wrong}. {dataset.root} offers: {known}.")
    return chosen


def _split(dataset: Dataset, split: str, feature_of: Mapping[str, str], embed: EmbedTexts) -> dict[str, Any]:
    """The columns of one split."""
    reader = ShardReader(dataset, tuple(dict.fromkeys(name for name in feature_of.values() if name != NO_FEATURE)))
    clips: list[Clip] = []
    arrays = {name: _Sequences(dataset, feature, dataset.manifest.rows(split)) for name, feature in feature_of.items()}
    for shard in dataset.split(split):
        for clip in clips_of(reader.read(shard), reader.specs):
            for sequences in arrays.values():
                sequences.add(len(clips), clip)
            clips.append(Clip(clip.clip_id, clip.video_id, clip.text, clip.label, clip.source))
    text, tokens = embed([clip.text for clip in clips])
    threshold = dataset.manifest.label.positive_from
    label_R = np.array([clip.label for clip in clips], np.float32)
    signs = [_WORDS[int(sign)] for sign in np.sign(label_R - np.float32(threshold))]
    columns: dict[str, Any] = {
        "id": [_mmsa_id(clip) for clip in clips],
        "raw_text": [clip.text for clip in clips],
        "text": text,
        "regression_labels": label_R,
        "classification_labels": np.array([number for _, number in signs], np.float32),
        "clip_id": [clip.clip_id for clip in clips],
        "video_id": [clip.video_id for clip in clips],
        "source": [clip.source for clip in clips],
    }
    if tokens is not None:
        columns["text_bert"] = tokens
    if threshold == 0:  # a reader takes them for signs of the label
        columns["annotations"] = [word for word, _ in signs]
    for name, sequences in arrays.items():
        columns |= {
            name: sequences.values,
            f"{name}_lengths": [1 if missing else sequences.length for missing in sequences.missing],
            f"{name}_missing": sequences.missing,
        }
    return columns


class _Sequences:
    """A modality's values, [R, L, D], and which clips lack it.

    Args:
        dataset: the data set.
        feature: the feature, or `none`: zeros of one step.
        rows: R.
    """

    def __init__(self, dataset: Dataset, feature: str, rows: int) -> None:
        self._feature = feature
        shape = (1, 1) if feature == NO_FEATURE else dataset.manifest.features[feature].shape
        self.length = 1 if len(shape) == 1 else shape[0]
        self.values = np.zeros((rows, self.length, shape[-1]), np.float32)
        self.missing: list[bool] = []

    def add(self, row: int, clip: Clip) -> None:
        """Fill in the row of a clip."""
        value: Array | None = clip.features.get(self._feature)
        self.missing.append(value is None)
        if value is not None:
            steps = value.astype(np.float32)
            self.values[row] = steps.mean(axis=1) if steps.ndim == 3 else steps


def _mmsa_id(clip: Clip) -> str:
    """`video$_$clip`, as in MMSA's files, if the clip's id begins with its video."""
    start = f"{clip.video_id}_"
    rest = clip.clip_id.removeprefix(start)
    return f"{clip.video_id}$_${rest}" if rest and clip.clip_id.startswith(start) else clip.clip_id

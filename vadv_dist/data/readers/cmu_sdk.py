"""Read computational sequences (`.csd`) of the CMU-MultimodalSDK into a data set.

A `.csd` is an HDF5 file: `/NAME/data/VIDEO/features` [L, D] and `/NAME/data/VIDEO/intervals` [L, 2] in seconds. Each
interval of the label file is a clip; rows of the word, visual and acoustic files belong to the clip whose interval
contains their midpoint. Shape letters: L rows of a video's sequence, T frames, D width.

All labels, and one video of each other file at a time, are in memory.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vadv_dist.data.dataset import MANIFEST
from vadv_dist.data.readers.computational_sequence import ComputationalSequence, TimedRows, require_same_clock
from vadv_dist.data.readers.csv_rows import SPLIT_NAMES, TextColumns, read_texts
from vadv_dist.data.readers.ingestion import BadRowError, Ingestion, IngestSummary, label_spec, printable
from vadv_dist.data.readers.sdk_texts import PairedTexts, VideoLabels, pair_texts
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.data.schema import Array, Clip, FeatureSpec, LabelSpec
from vadv_dist.data.shards import DEFAULT_SHARD_ROWS
from vadv_dist.errors import UserError
from vadv_dist.storage import local_path, location, read_json, require_absent

# The SDK's tokens for silence.
_SILENCE = ("sp", "sil", "")


def ingest_cmu_sdk(
    labels: str | Path,
    folds: str | Path,
    out: str | Path,
    *,
    words: str | Path | None = None,
    text_csv: str | Path | None = None,
    text_columns: TextColumns | None = None,
    visual: str | Path | None = None,
    face: str | Path | None = None,
    audio: str | Path | None = None,
    label_number: int = 0,
    label_range: tuple[float, float] = (LabelSpec.low, LabelSpec.high),
    threshold: float | None = None,
    framing: Framing | None = None,
    bad_rows: str = "drop",
    source: str | None = None,
    shard_rows: int = DEFAULT_SHARD_ROWS,
) -> IngestSummary:
    """Create a data set from computational sequences aligned to the intervals of the labels.

    Args:
        labels: `.csd` of labels; the k-th interval of a video is the clip `VIDEO_k`, counted from 1.
        folds: JSON `{"train": [video, …], "valid": […], "test": […]}`.
        out: the folder to create.
        words: `.csd` of words; a clip's text is the words in its interval.
        text_csv: a CSV of texts by clip id, instead of `words`.
        text_columns: its columns.
        visual, face, audio: `.csd` of the sequences that become these features.
        label_number: index of the label in a label row (0 is the sentiment).
        label_range: lowest and highest label.
        threshold: lowest positive label; None means the middle of the range.
        framing: how sequences become frames.
        bad_rows: `drop` or `error`, for intervals that cannot become a clip.
        source: source name of all clips; by default that of the label file.
        shard_rows: maximum number of rows per shard.

    Raises:
        UserError: a file or an option is invalid.
    """
    framing, label = framing or Framing(), label_spec(label_range, threshold)
    if (words is None) == (text_csv is None):
        raise UserError("Give the texts as either --words FILE.csd or --text-csv FILE.csv.")
    if label_number < 0:
        raise UserError(f"--label-number is {label_number}, expected an index of a label row, counted from 0.")
    root, labels_path, folds_path = location(out), local_path(labels), local_path(folds)
    require_absent(root, "a data set", "Choose another folder, or remove this one.", manifest=MANIFEST)
    split_of_video = read_folds(folds_path)
    texts_path = None if text_csv is None else local_path(text_csv)
    texts = {} if texts_path is None else read_texts(texts_path, text_columns or TextColumns())
    given = {"visual": visual, "face": face, "audio": audio}
    paths = {name: local_path(path) for name, path in given.items() if path is not None}
    words_path = None if words is None else local_path(words)
    files = [labels_path, folds_path, *[p for p in (texts_path, words_path) if p is not None], *paths.values()]
    with ExitStack() as stack:
        label_file = stack.enter_context(ComputationalSequence(labels_path, "--labels"))
        words_file = words_path and stack.enter_context(ComputationalSequence(words_path, "--words"))
        sequences = {
            name: stack.enter_context(ComputationalSequence(path, f"--{name}")) for name, path in paths.items()
        }
        widths = {name: sequence.width() for name, sequence in sequences.items()}
        ingestion = Ingestion(
            root,
            made_by="vadv ingest cmu-sdk",
            files=files,
            options={
                "label_number": label_number,
                "label_range": list(label_range),
                "threshold": label.positive_from,
                **framing.to_json(),
                "alignment": "rows whose midpoint is in the label's interval",
                "bad_rows": bad_rows,
            },
            features={
                name: FeatureSpec(
                    (framing.frames, 1, width) if name == "visual" else (framing.frames, width), framing.dtype
                )
                for name, width in widths.items()
            },
            label=label,
            bad_rows=bad_rows,
            shard_rows=shard_rows,
        )
        known = read_labels(label_file, label_number)
        paired = None if texts_path is None else pair_texts(texts, known, texts_path)
        require_same_clock(label_file, [*sequences.values(), *([words_file] if words_file else [])])
        reader = _Reader(ingestion, known, paired, words_file or None, sequences, framing)
        with ingestion:
            for video in label_file.videos:
                reader.video(label_file, video, split_of_video.get(video), source or labels_path.stem)
            ingestion.require_present(f"Its rows are in no interval of {labels_path}: are both files of one data set?")
            absent = len(set(split_of_video) - set(label_file.videos))
            if absent:
                ingestion.notes["videos of the folds without labels"] += absent
            if paired is not None:
                ingestion.note("texts without a clip", len(texts) - reader.used_texts)
                if paired.from_zero:
                    ingestion.note("texts numbered from 0, verified by their labels or times", paired.compared)
    return ingestion.summary()


def read_labels(file: ComputationalSequence, number: int) -> dict[str, VideoLabels]:
    """Read intervals and labels of every video.

    Args:
        file: the labels.
        number: index of the label in a row.

    Raises:
        UserError: a row is too short, or the file is damaged.
    """
    labels = {}
    for video in file.videos:
        intervals = file.intervals(video)
        values = file.features(video, len(intervals))
        if values.shape[1] <= number:
            raise UserError(
                f"{file.path} {printable(video)} has {values.shape[1]} numbers per label, so --label-number {number} "
                "does not exist (it is counted from 0)."
            )
        labels[video] = VideoLabels(intervals, values[:, number].astype(np.float64))
    return labels


def read_folds(path: Path) -> dict[str, str]:
    """Read the split of each video.

    Raises:
        UserError: it is not JSON with lists of videos, or a video is in two lists.
    """
    raw = read_json(path)
    split_of: dict[str, str] = {}
    for key, videos in raw.items():
        split = SPLIT_NAMES.get(key.lower())
        if split is None:
            raise UserError(f"{path} has a fold {printable(key)!r}, expected one of {', '.join(SPLIT_NAMES)}.")
        if not isinstance(videos, list) or not all(isinstance(video, str) for video in videos):
            raise UserError(f"{path}: fold {key!r} is not a list of video ids.")
        for video in videos:
            if split_of.setdefault(video, split) != split:
                raise UserError(f"{path}: video {printable(video)!r} is in both {split_of[video]} and {split}.")
    if not split_of:
        raise UserError(f"{path} has no videos, expected {{train: [video, …], valid: […], test: […]}}.")
    return split_of


@dataclass
class _Reader:
    """Turns the intervals of a video into clips."""

    ingestion: Ingestion
    labels: dict[str, VideoLabels]
    texts: PairedTexts | None
    words: ComputationalSequence | None
    sequences: dict[str, ComputationalSequence]
    framing: Framing
    used_texts: int = 0

    def video(self, labels: ComputationalSequence, video: str, split: str | None, source: str) -> None:
        """Write the clips of one video."""
        where, known = f"{labels.path} {printable(video)}", self.labels[video]
        if split is None:
            for row in range(len(known.intervals)):
                place = f"{printable(video)} interval {row + 1}"
                bad = self.ingestion.bad("video in no fold", f"{where} interval {row + 1}", "no fold has this video.")
                bad.place = place
                self.ingestion.drop(bad)
            return
        words = self._words(video)
        features = {name: TimedRows.of(sequence, video) for name, sequence in self.sequences.items()}
        for row, (start, end) in enumerate(known.intervals):
            clip_id = f"{video}_{row + 1}"
            place = f"{where} interval {row + 1}"
            try:
                if not end >= start:
                    raise self.ingestion.bad("interval ends before it starts", place, f"it is {start:g} to {end:g} s.")
                clip = Clip(
                    clip_id=clip_id,
                    video_id=video,
                    text=" ".join(words.within(start, end)) if self.words else self._text(video, row + 1, place),
                    label=float(known.labels[row]),
                    source=source,
                    features={
                        name: self._frames(name, sequence.within(start, end), place)
                        for name, sequence in features.items()
                    },
                )
            except BadRowError as bad:
                bad.place = f"{printable(video)} interval {row + 1}"
                self.ingestion.drop(bad)
            else:
                self.ingestion.add(split, clip, place)

    def _text(self, video: str, interval: int, place: str) -> str:
        row = None if self.texts is None else self.texts.of(video, interval)
        if row is None:
            name = printable(f"{video}_{interval}")
            raise self.ingestion.bad("no text for the clip", place, f"no text has the id {name!r}.")
        self.used_texts += 1
        self.ingestion.fallback_texts += row.used_fallback
        return row.text

    def _words(self, video: str) -> "TimedRows":
        if self.words is None or video not in self.words.videos:
            return TimedRows.in_order(np.zeros((0, 2)), [])
        intervals = self.words.intervals(video)
        words = [word.strip() for word in self.words.words(video, len(intervals))]
        kept = [i for i, word in enumerate(words) if word.lower() not in _SILENCE]
        return TimedRows.in_order(intervals[kept], [words[i] for i in kept])

    def _frames(self, name: str, values_LD: Any, place: str) -> Array | None:
        if not len(values_LD):
            return None
        frames = self.ingestion.frames(name, values_LD, self.framing, place)
        return frames[:, None, :] if name == "visual" else frames

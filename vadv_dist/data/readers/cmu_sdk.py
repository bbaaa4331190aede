"""Read computational sequences (`.csd`) of the CMU-MultimodalSDK into a data set.

Each interval of the label file is a clip; rows of the word, visual and acoustic files belong to the clip whose interval
contains their midpoint. All labels, and one video of each other file at a time, are in memory.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vadv_dist.data.readers.clip_rows import TextColumns, read_texts
from vadv_dist.data.readers.computational_sequence import (
    ComputationalSequence,
    TimedRows,
    open_sequence,
    require_same_clock,
)
from vadv_dist.data.readers.ingestion import (
    Ingestion,
    IngestSummary,
    bad_row,
    ingesting,
    new_dataset,
    printable,
)
from vadv_dist.data.readers.labels import label_spec
from vadv_dist.data.readers.sdk_texts import PairedTexts, VideoLabels, pair_texts
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.data.readers.splits import SPLIT_NAMES
from vadv_dist.data.schema import Clip, LabelSpec
from vadv_dist.errors import UserError
from vadv_dist.storage import local_path, read_json

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
        threshold: label that separates negative from positive; None means the middle of the range.
        framing: how sequences become frames.
        bad_rows: `drop` or `error`, for intervals that cannot become a clip.
        source: source name of all clips; by default that of the label file.

    Raises:
        UserError: a file or an option is invalid.
    """
    framing, label = framing or Framing(), label_spec(label_range, threshold)
    if (words is None) == (text_csv is None):
        raise UserError("Give the texts as either --words FILE.csd or --text-csv FILE.csv.")
    if label_number < 0:
        raise UserError(f"--label-number is {label_number}, expected an index of a label row, counted from 0.")
    root, labels_path, folds_path = new_dataset(out), local_path(labels), local_path(folds)
    split_of_video = read_folds(folds_path)
    texts_path = None if text_csv is None else local_path(text_csv)
    texts = {} if texts_path is None else read_texts(texts_path, text_columns or TextColumns())
    given = {"words": words, "visual": visual, "face": face, "audio": audio}
    paths = {name: local_path(path) for name, path in given.items() if path is not None}
    with ExitStack() as stack:
        label_file = stack.enter_context(open_sequence(labels_path, "--labels"))
        sequences = {name: stack.enter_context(open_sequence(path, f"--{name}")) for name, path in paths.items()}
        features = {name: framing.spec(name, file.width()) for name, file in sequences.items() if name != "words"}
        known = read_labels(label_file, label_number)
        paired = None if texts_path is None else pair_texts(texts, known, texts_path)
        require_same_clock(label_file, list(sequences.values()))
        ingestion = stack.enter_context(
            ingesting(
                root,
                made_by="vadv ingest cmu-sdk",
                files=[labels_path, folds_path, *([texts_path] if texts_path else []), *paths.values()],
                options={
                    "label_number": label_number,
                    "alignment": "rows whose midpoint is in the label's interval",
                },
                features=features,
                label=label,
                bad_rows=bad_rows,
                framing=framing,
            )
        )
        reader = _Reader(ingestion, label_file, known, paired, sequences, source or labels_path.stem)
        for video in label_file.videos:
            reader.video(video, split_of_video.get(video))
        ingestion.require_present(f"Its rows are in no interval of {labels_path}: are both files of one data set?")
        ingestion.note("videos of the folds without labels", len(set(split_of_video) - set(label_file.videos)))
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
    labels: ComputationalSequence
    known: dict[str, VideoLabels]
    texts: PairedTexts | None
    sequences: dict[str, ComputationalSequence]
    source: str
    used_texts: int = 0

    def video(self, video: str, split: str | None) -> None:
        """Write the clips of one video."""
        known = self.known[video]
        rows = {} if split is None else {name: self._rows(name, video) for name in self.sequences}
        for number, ((start, end), label) in enumerate(zip(known.intervals, known.labels, strict=True), 1):
            with self.ingestion.row(self.labels.path, f"{printable(video)} interval {number}") as where:
                if split is None:
                    raise bad_row("video in no fold", where, "no fold has this video.")
                if not end >= start:
                    raise bad_row("interval ends before it starts", where, f"it is {start:g} to {end:g} s.")
                clip_rows = {name: timed.within(start, end) for name, timed in rows.items()}
                text = self._text(video, number, where) if self.texts else " ".join(clip_rows.pop("words"))
                features = {name: self.ingestion.frames(name, values, where) for name, values in clip_rows.items()}
                clip = Clip(f"{video}_{number}", video, text, float(label), self.source, features)
                self.ingestion.add(split, clip, where)

    def _text(self, video: str, number: int, where: str) -> str:
        row = self.texts.of(video, number) if self.texts else None
        if row is None:
            raise bad_row("no text for the clip", where, f"no text has the id {printable(f'{video}_{number}')!r}.")
        self.used_texts += 1
        self.ingestion.fallback_texts += row.used_fallback
        return row.text

    def _rows(self, name: str, video: str) -> TimedRows:
        sequence = self.sequences[name]
        if name != "words" or video not in sequence.videos:
            return TimedRows.of(sequence, video)
        intervals = sequence.intervals(video)
        words = [word.strip() for word in sequence.words(video, len(intervals))]
        kept = [i for i, word in enumerate(words) if word.lower() not in _SILENCE]
        return TimedRows(intervals[kept], [words[i] for i in kept])

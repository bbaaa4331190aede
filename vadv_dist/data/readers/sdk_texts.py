"""Match the texts of a CSV to the intervals of a label file.

Intervals have no ids: the k-th interval of a video is its clip k, counted from 1. The CSV has ids such as `VIDEO_3` and
may count from 0, or skip clips and renumber. Therefore whatever both files contain is compared: label, start and end of
a clip, and if the CSV has none of these, the number of clips per video.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadv_dist.data.readers.clip_rows import TextRow
from vadv_dist.data.readers.ingestion import MAX_LABEL_DIFFERENCE, printable
from vadv_dist.data.video_ids import number_in, video_of
from vadv_dist.errors import UserError

# Both files come from one annotation, in which times are at most rounded.
_MAX_TIME_DIFFERENCE_S = 0.05
_MAX_EXAMPLES = 3
_ADVICE = "Add columns start and end (seconds) or label to the CSV, so that texts and intervals can be compared."


@dataclass(frozen=True)
class VideoLabels:
    """The clips of one video: start and end of each in seconds, [K, 2], and its label, [K]."""

    intervals: npt.NDArray[np.float64]
    labels: npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairedTexts:
    """Texts by video and interval.

    Attributes:
        rows: by video and number in the CSV.
        from_zero: whether the CSV counts clips from 0.
        compared: number of texts that agree with their interval in label or times.
    """

    rows: Mapping[tuple[str, int], TextRow]
    from_zero: bool
    compared: int

    def of(self, video: str, interval: int) -> TextRow | None:
        """The text of an interval, counted from 1; None if the CSV has none."""
        return self.rows.get((video, interval - self.from_zero))


def pair_texts(texts: Mapping[str, TextRow], videos: Mapping[str, VideoLabels], path: object) -> PairedTexts:
    """Determine how a CSV of texts counts clips.

    Args:
        texts: rows by clip id.
        videos: labels by video.
        path: the CSV, for messages.

    Raises:
        UserError: two ids name one clip, a text contradicts its interval, or the numbering cannot be verified.
    """
    rows = _by_number(texts, videos)
    from_one, from_zero = (_Comparison(rows, videos, first) for first in (1, 0))
    has_zero = any(number == 0 for _, number in rows)
    if from_one.contradictions:
        if from_zero.agree and not from_zero.contradictions:
            return PairedTexts(rows, True, from_zero.agree)
        best = min(from_one, from_zero, key=lambda comparison: len(comparison.contradictions))
        shown = "; ".join(best.contradictions[:_MAX_EXAMPLES])
        raise UserError(
            f"{path}: {len(best.contradictions):,} of {best.found:,} texts contradict their intervals, counted "
            f"from {best.first}: {shown}. Number clips in the order of their labels, from 1; if one of the columns "
            "start, end and label means something else, rename it."
        )
    if has_zero and not from_zero.contradictions:
        zero = next(f"{video}_0" for video, number in rows if number == 0)
        raise UserError(
            f"{path} counts clips from 0 ({printable(zero)!r}), but intervals are counted from 1, and the numbering "
            f"cannot be verified. {_ADVICE} Or number the texts from 1."
        )
    if not (from_one.agree or from_zero.agree or from_zero.contradictions):
        _require_counts(rows, videos, path)
    return PairedTexts(rows, False, from_one.agree)


class _Comparison:
    """Compare texts and intervals if the CSV counts from `first`."""

    def __init__(self, rows: Mapping[tuple[str, int], TextRow], videos: Mapping[str, VideoLabels], first: int) -> None:
        self.first, self.agree, self.found = first, 0, 0
        self.contradictions: list[str] = []
        for video, known in videos.items():
            for k, ((start, end), label) in enumerate(zip(known.intervals, known.labels, strict=True)):
                row = rows.get((video, k + first))
                if row is None:
                    continue
                self.found += 1
                name = f"{row.where}: text {printable(f'{video}_{k + first}')!r}"
                pairs = (
                    (row.start, start, _MAX_TIME_DIFFERENCE_S, "starts at {:g} s, but the label's interval at {:g} s"),
                    (row.end, end, _MAX_TIME_DIFFERENCE_S, "ends at {:g} s, but the label's interval at {:g} s"),
                    (row.label, label, MAX_LABEL_DIFFERENCE, "has label {:g}, but its interval {:g}"),
                )
                both = [pair for pair in pairs if pair[0] is not None and math.isfinite(pair[1])]
                differing = [text.format(a, b) for a, b, most, text in both if not abs((a or 0) - b) <= most]
                if differing:
                    self.contradictions.append(f"{name} {differing[0]}")
                elif both:
                    self.agree += 1


def _by_number(texts: Mapping[str, TextRow], videos: Mapping[str, VideoLabels]) -> dict[tuple[str, int], TextRow]:
    rows: dict[tuple[str, int], TextRow] = {}
    for clip_id, row in texts.items():
        video = video_of(clip_id)
        number = number_in(clip_id, video) if video in videos else None
        if number is None:
            continue
        if (video, number) in rows:
            raise UserError(
                f"{row.where}: id {printable(clip_id)!r} names the same clip as {rows[video, number].where}. Keep one "
                "text for each clip."
            )
        rows[video, number] = row
    return rows


def _require_counts(rows: Mapping[tuple[str, int], TextRow], videos: Mapping[str, VideoLabels], path: object) -> None:
    """Refuse texts that may have been renumbered after some were removed, if nothing else can be compared."""
    numbers_of: dict[str, list[int]] = {}
    for video, number in rows:
        numbers_of.setdefault(video, []).append(number)
    unclear = []
    for video, numbers in numbers_of.items():
        starts, last = videos[video].intervals[:, 0], max(numbers)
        if last > len(starts) or (last == len(numbers) and last != len(starts)):
            unclear.append(f"{printable(video)} has {len(numbers):,} texts and {len(starts):,} intervals")
        elif not (np.diff(starts) >= 0).all():
            unclear.append(f"{printable(video)} has intervals that are not ordered by time")
    if unclear:
        raise UserError(
            f"{path}: in {len(unclear):,} videos it is not clear which text belongs to which interval: "
            f"{'; '.join(unclear[:_MAX_EXAMPLES])}. {_ADVICE} Or add a row for every interval, with an empty text if "
            "there are no words."
        )

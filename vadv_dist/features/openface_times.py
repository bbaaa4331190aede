"""Map the rows of an OpenFace file to the frames of a video.

OpenFace numbers the frames of its input from 1, and its times are (number - 1) / mean rate. The input may have been the
whole video or a clip that was cut from it; the number of covered frames tells which.
"""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from vadv_dist.features.frames import Span, Video
from vadv_dist.features.timeline import BadClipError

# The last frames of a cut or re-encoded copy may be missing.
_SLACK_S, _SLACK_FRAMES = 0.25, 3
# Rates that differ by less are equal: OpenFace uses the container's mean rate.
_SAME_RATE = 0.02


@dataclass(frozen=True)
class Coverage:
    """The frames with rows in an OpenFace file.

    Attributes:
        file: its name, for messages.
        numbers: frame numbers, ascending, from 1; empty if the file has none.
        stamps: their times; empty if the file has none.
        is_complete: whether frames without a face also have rows, so that the last row is the last frame.
    """

    file: str
    numbers: Sequence[int]
    stamps: Sequence[float]
    is_complete: bool


class Recording:
    """The input of OpenFace: a video or a part of it.

    Args:
        shown_s: player time of each frame, ascending.
        begin_s, end_s: its start and end.
    """

    def __init__(self, shown_s: Sequence[float], begin_s: float, end_s: float) -> None:
        self.shown_s, self.begin_s, self.length_s = shown_s, begin_s, end_s - begin_s

    def fits(self, covered: Coverage) -> bool:
        """Whether a file may cover this recording: every frame of it, or some if faces are missing."""
        beyond = []
        if covered.numbers:
            beyond.append((covered.numbers[-1] - len(self.shown_s)) / _SLACK_FRAMES)
        if covered.stamps:
            beyond.append((covered.stamps[-1] + _spacing(covered.stamps) - self.length_s) / _SLACK_S)
        return any(abs(b) <= 1 if covered.is_complete else b <= 1 for b in beyond)

    def row_at(self, covered: Coverage, time_s: float) -> int | None:
        """Index in the coverage of the frame shown at a player time; None if it has no row."""
        if covered.numbers and self._is_at_rate(covered):
            number = max(1, bisect.bisect_right(self.shown_s, time_s + 1e-6))
            place = bisect.bisect_left(covered.numbers, number)
            return place if place < len(covered.numbers) and covered.numbers[place] == number else None
        wanted = time_s - self.begin_s
        after = bisect.bisect_left(covered.stamps, wanted)
        near = range(max(0, after - 1), min(len(covered.stamps), after + 1))
        place = min(near, key=lambda i: abs(covered.stamps[i] - wanted))
        return place if abs(covered.stamps[place] - wanted) <= _spacing(covered.stamps) else None

    def _is_at_rate(self, covered: Coverage) -> bool:
        """Whether the file numbers the frames of this recording, not those of a copy with another rate."""
        if len(covered.stamps) < 2 or len(covered.numbers) < 2:
            return True
        counted = (covered.stamps[-1] - covered.stamps[0]) / (covered.numbers[-1] - covered.numbers[0])
        return abs(counted * len(self.shown_s) / self.length_s - 1) <= _SAME_RATE


def recording_of(covered: Coverage, video: Video, span: Span, *, is_part: bool, names_clip: bool) -> Recording:
    """Determine the input of OpenFace.

    Args:
        covered: its rows.
        video: the clip's video.
        span: the clip's part of it.
        is_part: whether the list cuts the clip from its file.
        names_clip: whether OpenFace's file is named after the clip's id, not the video file.
    Raises:
        BadClipError: neither the video nor the clip fits.
    """
    whole = Recording(video.shown_s, video.whole.start_s, video.whole.end_s)
    first = bisect.bisect_left(video.shown_s, span.start_s - 1e-3)
    last = bisect.bisect_left(video.shown_s, span.end_s - 1e-3)
    cut = Recording(video.shown_s[first:last], span.start_s, span.end_s)
    if not is_part or not names_clip:  # a file shared by all clips of the video is not about one of them
        candidates = [whole]
    elif covered.is_complete:
        candidates = [cut, whole]
    elif not cut.fits(covered) or abs(cut.length_s - whole.length_s) <= _SLACK_S:
        candidates = [whole]  # rows beyond the clip's length belong to the video
    else:
        candidates = [cut] if _reaches(covered, cut) else []  # otherwise it could be either
    for candidate in candidates:
        if candidate.fits(covered):
            return candidate
    raise BadClipError(
        f"wrong OpenFace output: {covered.file} covers {_extent(covered)}, but the clip has "
        f"{len(cut.shown_s)} frames in {cut.length_s:.2f} s, its video {len(whole.shown_s)} in {whole.length_s:.2f} s"
    )


def _reaches(covered: Coverage, recording: Recording) -> bool:
    end = covered.stamps[-1] if covered.stamps else covered.numbers[-1] / len(recording.shown_s) * recording.length_s
    return end > recording.length_s - 2 * _SLACK_S


def _spacing(stamps: Sequence[float]) -> float:
    gaps = sorted(b - a for a, b in itertools.pairwise(stamps))
    return gaps[len(gaps) // 2] if gaps else 0.0


def _extent(covered: Coverage) -> str:
    frames = f"frames up to number {covered.numbers[-1]}" if covered.numbers else ""
    seconds = f"{covered.stamps[-1] + _spacing(covered.stamps):.2f} s" if covered.stamps else ""
    return " and ".join(part for part in (frames, seconds) if part)

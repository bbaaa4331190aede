"""One computational sequence (`.csd`) of the CMU-MultimodalSDK: rows of a video, each with its interval.

A `.csd` is an HDF5 file: `/NAME/data/VIDEO/features` [L, D] and `/NAME/data/VIDEO/intervals` [L, 2] in seconds. Shape
letters: L rows of a video's sequence, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vadv_dist.data.readers.hdf5 import ArrayInfo, Hdf5File
from vadv_dist.data.readers.ingestion import printable
from vadv_dist.data.schema import Array
from vadv_dist.errors import UserError

# A sequence may extend far beyond a video's labelled part; milliseconds or frame numbers differ by 1000 or 25 to 100.
_MAX_LENGTH_RATIO = 20.0
_CLOCK_VIDEOS = 40


@contextmanager
def open_sequence(path: Path, option: str) -> Iterator["ComputationalSequence"]:
    """Open a `.csd` file, given by a command-line option.

    Raises:
        UserError: the file is missing, damaged or has another layout.
    """
    with Hdf5File(path, option) as file:
        names = file.names("/")
        if len(names) != 1:
            shown = ", ".join(printable(name) for name in names[:10]) or "nothing"
            raise UserError(f"{path} has {shown} at its root, expected one computational sequence.")
        yield ComputationalSequence(file, f"{names[0]}/data", dict.fromkeys(file.names(f"{names[0]}/data")))


@dataclass(frozen=True)
class ComputationalSequence:
    """An open `.csd` file, and its videos in the order of the file.

    Raises:
        UserError: by every method, if the file is damaged or has another layout.
    """

    file: Hdf5File
    root: str
    videos: dict[str, None]

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def width(self) -> int:
        """D of the first video with rows."""
        for video in self.videos:
            shape = self.file.describe(f"{self.root}/{video}/features").shape
            if len(shape) == 2 and shape[0]:
                return shape[1]
        raise UserError(f"{self.path} has no features of shape [L, D] in any video.")

    def intervals(self, video: str) -> npt.NDArray[np.float64]:
        """Start and end of each row of a video in seconds, [L, 2]."""
        place = f"{self.root}/{video}/intervals"
        info = self.file.describe(place)
        if len(info.shape) != 2 or info.shape[1] != 2 or info.kind == "text":
            raise UserError(
                f"{self.path}: intervals of {printable(video)} have shape {list(info.shape)}, expected [L, 2]."
            )
        return self.file.numbers(place).astype(np.float64)

    def features(self, video: str, rows: int) -> Array:
        """Numbers of each row of a video, [L, D]."""
        place = f"{self.root}/{video}/features"
        info = self.file.describe(place)
        if info.kind == "text" or len(info.shape) != 2 or info.shape[0] != rows or not info.shape[1]:
            raise self._unfit(info, video, f"numbers of shape [{rows}, D]")
        return self.file.numbers(place)

    def words(self, video: str, rows: int) -> list[str]:
        """The string of each row of a video."""
        place = f"{self.root}/{video}/features"
        info = self.file.describe(place)
        if info.kind != "text" or info.shape not in ((rows,), (rows, 1)):
            raise self._unfit(info, video, f"strings of shape [{rows}, 1]")
        return self.file.texts(place)

    def _unfit(self, info: ArrayInfo, video: str, expected: str) -> UserError:
        kind = "strings" if info.kind == "text" else "numbers"
        return UserError(
            f"{self.path}: features of {printable(video)} are {kind} of shape {list(info.shape)}, expected {expected}, "
            "one per interval. Use another file, or download this one again."
        )


def require_same_clock(labels: ComputationalSequence, others: Sequence[ComputationalSequence]) -> None:
    """Refuse a sequence whose time unit differs from the labels', judged by where videos end.

    Raises:
        UserError: the median ratio of the ends of some videos is not plausible for equal units.
    """
    for other in others:
        ratios = []
        shared = [video for video in other.videos if video in labels.videos]
        if not shared:
            raise UserError(f"{other.path} has none of the videos of {labels.path}. Use files of one data set.")
        for video in shared[:: max(1, len(shared) // _CLOCK_VIDEOS)]:
            ends = [float(np.nanmax(file.intervals(video), initial=0.0)) for file in (labels, other)]
            if min(ends) > 0 and np.isfinite(ends).all():
                ratios.append(ends[1] / ends[0])
        middle = float(np.median(ratios)) if ratios else 1.0
        if not 1 / _MAX_LENGTH_RATIO < middle < _MAX_LENGTH_RATIO:
            raise UserError(
                f"{other.path}: its videos end {middle:.3g} times as late as in the labels of {labels.path}, so the "
                "two use different units of time. Both must be in seconds."
            )


class TimedRows:
    """Rows of a video's sequence (an array or a list), sorted by the midpoint of their intervals."""

    def __init__(self, intervals: npt.NDArray[np.float64], rows: Any) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # an invalid midpoint is NaN, which is in no clip
            middle_s = intervals[:, 0] / 2 + intervals[:, 1] / 2
        order = np.argsort(middle_s, kind="stable")
        self.middle_s = middle_s[order]
        self.rows = [rows[i] for i in order] if isinstance(rows, list) else rows[order]

    @classmethod
    def of(cls, sequence: ComputationalSequence, video: str) -> "TimedRows":
        """The rows of a video; none if the sequence lacks it."""
        if video not in sequence.videos:
            return cls(np.zeros((0, 2)), np.zeros((0, 1), np.float32))
        intervals = sequence.intervals(video)
        return cls(intervals, sequence.features(video, len(intervals)))

    def within(self, start: float, end: float) -> Any:
        """Rows whose midpoint is in [start, end), ordered by time."""
        chosen = slice(*np.searchsorted(self.middle_s, [start, end]))
        return self.rows[chosen]

"""One computational sequence (`.csd`) of the CMU-MultimodalSDK: rows of a video, each with its interval.

A `.csd` is an HDF5 file: `/NAME/data/VIDEO/features` [L, D] and `/NAME/data/VIDEO/intervals` [L, 2] in seconds. Shape
letters: L rows of a video's sequence, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vadv_dist.data.readers.hdf5 import ArrayInfo, Hdf5File
from vadv_dist.data.readers.ingestion import printable
from vadv_dist.data.schema import Array
from vadv_dist.errors import UserError

# A sequence may extend far beyond a video's labelled part; milliseconds or frame numbers differ by 1000 or 25 to 100.
_MAX_LENGTH_RATIO = 20.0
_CLOCK_VIDEOS = 40


class ComputationalSequence:
    """One `.csd` file, used as a context manager.

    Raises:
        UserError: by every method, if the file is damaged or has another layout.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path = path
        self._file = Hdf5File(path, option)
        self.name = ""
        self.videos: dict[str, None] = {}  # ordered as in the file, with fast lookup

    def __enter__(self) -> "ComputationalSequence":
        self._file.__enter__()
        try:
            names = self._file.names("/")
            if len(names) != 1:
                shown = ", ".join(printable(name) for name in names[:10]) or "nothing"
                raise UserError(f"{self.path} has {shown} at its root, expected one computational sequence.")
            self.name = names[0]
            self.videos = dict.fromkeys(self._file.names(f"{self.name}/data"))
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def width(self) -> int:
        """D of the first video with rows."""
        for video in self.videos:
            shape = self._file.describe(self._place(video, "features")).shape
            if len(shape) == 2 and shape[0]:
                return shape[1]
        raise UserError(f"{self.path} has no features of shape [L, D] in any video.")

    def intervals(self, video: str) -> npt.NDArray[np.float64]:
        """Start and end of each row of a video in seconds, [L, 2]."""
        info, values = self._file.whole(self._place(video, "intervals"))
        if len(info.shape) != 2 or info.shape[1] != 2 or info.kind == "text":
            raise UserError(
                f"{self.path}: intervals of {printable(video)} have shape {list(info.shape)}, expected [L, 2]."
            )
        return np.asarray(values, np.float64)

    def features(self, video: str, rows: int) -> Array:
        """Numbers of each row of a video, [L, D]."""
        info, values = self._file.whole(self._place(video, "features"))
        if info.kind == "text" or len(info.shape) != 2 or info.shape[0] != rows or not info.shape[1]:
            raise self._unfit(info, video, f"numbers of shape [{rows}, D]")
        return np.asarray(values)

    def words(self, video: str, rows: int) -> list[str]:
        """The string of each row of a video."""
        info, values = self._file.whole(self._place(video, "features"))
        if info.kind != "text" or info.shape not in ((rows,), (rows, 1)):
            raise self._unfit(info, video, f"strings of shape [{rows}, 1]")
        return list(values)

    def _unfit(self, info: ArrayInfo, video: str, expected: str) -> UserError:
        kind = "strings" if info.kind == "text" else "numbers"
        return UserError(
            f"{self.path}: features of {printable(video)} are {kind} of shape {list(info.shape)}, expected {expected}, "
            "one per interval. Use another file, or download this one again."
        )

    def _place(self, video: str, what: str) -> str:
        return f"{self.name}/data/{video}/{what}"


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


def middles(intervals: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Midpoint of each interval in seconds; NaN, which is in no clip, for invalid intervals."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(intervals[:, 0] / 2 + intervals[:, 1] / 2)


@dataclass(frozen=True)
class TimedRows:
    """Rows of a video's sequence with their midpoints in seconds."""

    middle_s: npt.NDArray[np.float64]
    rows: Any

    @classmethod
    def of(cls, sequence: ComputationalSequence, video: str) -> Self:
        """The rows of a video; none if the sequence lacks it."""
        if video not in sequence.videos:
            return cls.in_order(np.zeros((0, 2)), np.zeros((0, 1), np.float32))
        intervals = sequence.intervals(video)
        return cls.in_order(intervals, sequence.features(video, len(intervals)))

    @classmethod
    def in_order(cls, intervals: npt.NDArray[np.float64], rows: Any) -> Self:
        """Rows sorted by midpoint; ties keep the file's order."""
        middle_s = middles(intervals)
        order = np.argsort(middle_s, kind="stable")
        return cls(middle_s[order], [rows[i] for i in order] if isinstance(rows, list) else rows[order])

    def within(self, start: float, end: float) -> Any:
        """Rows whose midpoint is in [start, end), ordered by time."""
        chosen = np.flatnonzero((self.middle_s >= start) & (self.middle_s < end))
        return [self.rows[i] for i in chosen] if isinstance(self.rows, list) else self.rows[chosen]

"""Frames as a viewer sees them: rotated and stretched according to the file."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.sidedata.sidedata import Type

from vadv_dist.features.timeline import BadClipError

# Pixels wider or higher than this mean a damaged header: real ones are between 1:2 and 2:1.
_ODD_PIXELS = 4
# Relative to the larger entries of a display matrix: phones write exact quarter turns.
_SLANT = 0.02


@dataclass(frozen=True)
class Turn:
    """One of the eight orientations of an image: first transposed, then mirrored left to right and top to bottom."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    def __bool__(self) -> bool:
        return self.transposed or self.mirrored or self.flipped

    def image(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Apply it to an image, [H, W, 3]."""
        turned = pixels.transpose(1, 0, 2) if self.transposed else pixels
        turned = turned[:, ::-1] if self.mirrored else turned
        return np.ascontiguousarray(turned[::-1] if self.flipped else turned)

    def boxes(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Apply it to boxes (left, top, right, bottom as fractions of width and height), [..., 4]."""
        left, top, right, bottom = np.moveaxis(shares, -1, 0)
        if self.transposed:
            left, top, right, bottom = top, left, bottom, right
        if self.mirrored:
            left, right = 1 - right, 1 - left
        if self.flipped:
            top, bottom = 1 - bottom, 1 - top
        return np.stack([left, top, right, bottom], axis=-1)


@dataclass(frozen=True)
class Picture:
    """A decoded frame and how to display it.

    Attributes:
        frame: the coded frame.
        pixel_aspect: width of a pixel over its height.
        turn: the transformation that makes it upright.
    """

    frame: VideoFrame
    pixel_aspect: Fraction
    turn: Turn

    @property
    def size(self) -> tuple[int, int]:
        """Displayed width and height, in square pixels."""
        size = max(1, round(self.frame.width * self.pixel_aspect)), self.frame.height
        return size[::-1] if self.turn.transposed else size

    @property
    def coded_size(self) -> tuple[int, int]:
        """Coded width and height, in pixels of any aspect."""
        return self.frame.width, self.frame.height


def picture_of(frame: VideoFrame, pixel_aspect: Fraction | None) -> Picture:
    """Determine how to display a frame.

    Args:
        frame: a decoded frame; it has the display matrix of its file.
        pixel_aspect: that of its stream; None or 0 if unknown.
    Raises:
        BadClipError: it is rotated by an angle other than quarter turns, or its pixels have an absurd aspect.
    """
    aspect = pixel_aspect or Fraction(1)
    if not Fraction(1, _ODD_PIXELS) <= aspect <= _ODD_PIXELS:
        raise BadClipError(f"odd pixels: {aspect} times as wide as high")
    side_data: Any = frame.side_data  # PyAV's types do not allow lookup by type
    matrix = side_data.get(Type.DISPLAYMATRIX)
    return Picture(frame, aspect, Turn() if matrix is None else turn_of(np.frombuffer(matrix, np.int32)))


def turn_of(matrix: npt.NDArray[np.int32]) -> Turn:
    """The transformation of a display matrix of nine numbers; its scale and translation are ignored.

    A point (p, q), from the left and from the top, is shown at (a p + c q, b p + d q) for a matrix that begins with
    a, b, _, c, d. See libavutil/display.h.

    Raises:
        BadClipError: it rotates by an angle other than quarter turns.
    """
    a, b, c, d = (float(matrix[place]) for place in (0, 1, 3, 4))
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if not (a or b or c or d):
        return Turn()  # like ffmpeg
    if max(abs(a), abs(d)) <= _SLANT * crossed:
        return Turn(True, mirrored=c < 0, flipped=b < 0)
    if max(abs(b), abs(c)) <= _SLANT * straight:
        return Turn(False, mirrored=a < 0, flipped=d < 0)
    raise BadClipError("odd angle: the frames are rotated by other than quarter turns. Encode the clip upright")

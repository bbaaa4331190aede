"""One face followed through a clip: the largest of each frame, smoothed over time, cut out as a square.

Shape letters: T frames.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vadv_dist.features.frames import Image

Floats = npt.NDArray[np.float64]


def largest(boxes: npt.NDArray[np.float32]) -> Floats:
    """The box of the largest area among [F, 4], [4]; NaN where there is none."""
    if not len(boxes):
        return np.full(4, np.nan)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(boxes[int(areas.argmax())], np.float64)


def follow(boxes_T4: Floats, *, min_share: float, smoothing: float) -> Floats | None:
    """Fill the frames without a face, and smooth centre and size over time.

    Gaps are filled on straight lines between the frames around them; before the first face and after the last, its box
    is held.

    Args:
        boxes_T4: left, top, right, bottom; NaN where a frame has no face.
        min_share: a smaller share of frames with a face is no face at all.
        smoothing: standard deviation of a Gaussian over frames; 0 does not smooth.
    Returns:
        a box for every frame, or None where the clip has no face.
    """
    found = ~np.isnan(boxes_T4).any(axis=1)
    if not found.any() or found.mean() < min_share:
        return None
    frames = np.arange(len(boxes_T4))
    filled = np.stack([np.interp(frames, frames[found], boxes_T4[found, side]) for side in range(4)], axis=1)
    if smoothing <= 0:
        return filled
    weights = np.exp(-0.5 * ((frames[:, None] - frames[None, :]) / smoothing) ** 2)
    return np.asarray((weights / weights.sum(axis=1, keepdims=True)) @ filled)


def squares(boxes_T4: Floats, margin: float) -> npt.NDArray[np.int64]:
    """Square crops around boxes: left, top, side in whole pixels, [T, 3]; they may leave the image.

    Args:
        boxes_T4: left, top, right, bottom.
        margin: added on each side, as a share of the box's larger side.
    """
    sizes = boxes_T4[:, 2:] - boxes_T4[:, :2]
    sides = np.maximum(1, np.rint(sizes.max(axis=1) * (1 + 2 * margin)))
    centres = (boxes_T4[:, :2] + boxes_T4[:, 2:]) / 2
    corners = np.rint(centres - sides[:, None] / 2)
    return np.concatenate([corners, sides[:, None]], axis=1).astype(np.int64)


def crop(image: Image, square: Sequence[int] | npt.NDArray[np.int64]) -> Image:
    """Cut a square out of an image; what lies outside it is black."""
    left, top, side = (int(value) for value in square)
    height, width = image.shape[:2]
    cut = np.zeros((side, side, 3), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x1 > x0 and y1 > y0:
        cut[y0 - top : y1 - top, x0 - left : x1 - left] = image[y0:y1, x0:x1]
    return cut

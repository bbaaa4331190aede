"""Tells whether two sampled frames of a clip show the same scene: a face is not followed across a cut."""

from collections.abc import Sequence

import numpy as np

from vadv_dist.features.frames import Image

# Measured on 13 clips of talking people and a cartoon, 24 frames each: neighbours of one shot differ by at most 0.06
# and 0.13, shots of different people before the same wall by at least 0.038 and 0.14.
_PIXELS, _COLOURS = 0.035, 0.13
# Where a camera moves, all neighbours differ: a cut is what differs by so many times more.
_OUTSTANDING = 4
_SIDE, _BINS = 24, 6


class Scenes:
    """Frames of one clip, in order.

    Args:
        images: RGB, of any size.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        from PIL import Image as Pillow

        self._small = [
            np.asarray(Pillow.fromarray(image).resize((_SIDE, _SIDE), Pillow.Resampling.BOX), np.float32) / 255
            for image in images
        ]
        self._colours = [
            np.histogramdd(small.reshape(-1, 3), bins=(_BINS,) * 3, range=((0, 1),) * 3)[0].ravel() / _SIDE**2
            for small in self._small
        ]
        steps = [self._pixels(i, i + 1) for i in range(len(images) - 1)]
        self._usual = float(np.median(steps)) if steps else 0.0

    def same(self, a: int, b: int) -> bool:
        """Whether two frames, by their numbers, show the same scene."""
        if self._pixels(a, b) <= max(_PIXELS, _OUTSTANDING * self._usual):
            return True
        return float(np.abs(self._colours[a] - self._colours[b]).sum()) / 2 <= _COLOURS

    def _pixels(self, a: int, b: int) -> float:
        return float(np.abs(self._small[a] - self._small[b]).mean())

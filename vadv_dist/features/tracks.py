"""Follow one person's face through a clip, smooth its box over time, and crop it as a square.

Faces of neighbouring frames belong to one person if they are close together, have similar size, and no cut is between
them. The person seen longest and largest is chosen; nothing is averaged over two people.

Shape letters: T frames, F faces of a frame.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from vadv_dist.features.frames import Image

Floats = npt.NDArray[np.float64]
SameScene = Callable[[int, int], bool]

# In sides of a face's box: two heads side by side are further apart, and a head moves less between two frames.
_FURTHEST = 1.0
_LARGEST_CHANGE = 1.6

# Measured on 13 clips of talking people and a cartoon, 24 frames each: neighbours in one shot differ by at most 0.06
# and 0.13, shots of different people in front of the same wall by at least 0.038 and 0.14.
_PIXELS, _COLOURS = 0.035, 0.13
# With a moving camera all neighbours differ: a cut differs by this many times more.
_OUTSTANDING = 4
_SIDE, _BINS = 24, 6


@dataclass(frozen=True)
class Track:
    """One person's face in every frame of a clip.

    Attributes:
        boxes: left, top, right, bottom, [T, 4].
        sources: the frame of each box: the frame itself, or the nearest one that shows the person.
        seen: index of the person's face, for the frames in which the person was found.
    """

    boxes: Floats
    sources: list[int]
    seen: dict[int, int]


def choose_person(faces_TF4: Sequence[Floats], same_scene: SameScene) -> dict[int, int]:
    """Choose the person seen longest and largest: the index of the face per frame; empty if there are no faces.

    Args:
        faces_TF4: the faces of each frame: left, top, right, bottom, in one unit for all frames.
        same_scene: whether two frames, given by index, show the same scene.
    """
    people: list[dict[int, int]] = []
    last_seen: list[int] = []
    for frame, faces in enumerate(faces_TF4):
        near = []
        for who, (person, last) in enumerate(zip(people, last_seen, strict=True)):
            distances = [_distance(faces_TF4[last][person[last]], box) for box in faces]
            if any(distance is not None for distance in distances) and same_scene(last, frame):
                near += [(d, who, face) for face, d in enumerate(distances) if d is not None]
        taken: set[int] = set()
        for _, who, face in sorted(near):  # the closest pairs first
            if last_seen[who] < frame and face not in taken:
                people[who][frame] = face
                last_seen[who] = frame
                taken.add(face)
        new = [face for face in range(len(faces)) if face not in taken]
        people += [{frame: face} for face in new]
        last_seen += [frame] * len(new)
    return max(people, key=lambda person: sum(_side(faces_TF4[t][f]) for t, f in person.items()), default={})


def follow(
    faces_TF4: Sequence[Floats], seen: dict[int, int], same_scene: SameScene, *, min_share: float, smoothing: float
) -> Track | None:
    """Compute a person's box in every frame.

    Between two frames of one shot that show the person, the box is interpolated linearly; elsewhere, the nearest frame
    that shows the person is used.

    Args:
        faces_TF4, same_scene: as in `choose_person`.
        seen: index of the person's face, for the frames that show them.
        min_share: minimum fraction of frames that show the person.
        smoothing: standard deviation of a Gaussian over the frames of a shot; 0 does not smooth.
    Returns:
        None if the clip has no face.
    """
    frames = len(faces_TF4)
    if not seen or len(seen) / frames < min_share:
        return None
    boxes = np.zeros((frames, 4))
    covered: list[int] = []
    for shot in _shots(sorted(seen), same_scene):
        inside = np.arange(shot[0], shot[-1] + 1)
        known = np.stack([faces_TF4[t][seen[t]] for t in shot])
        filled = np.stack([np.interp(inside, shot, known[:, side]) for side in range(4)], axis=1)
        if smoothing > 0:
            weights = np.exp(-0.5 * ((inside[:, None] - inside[None, :]) / smoothing) ** 2)
            filled = (weights / weights.sum(axis=1, keepdims=True)) @ filled
        boxes[inside] = filled
        covered += inside.tolist()
    sources = [min(covered, key=lambda t: abs(t - frame)) for frame in range(frames)]
    return Track(boxes[sources], sources, seen)


def _distance(a: Floats, b: Floats) -> float | None:
    """Distance of two boxes in units of their mean side; None if they cannot be of one person."""
    sides = _side(a), _side(b)
    if not min(sides) > 0 or max(sides) > _LARGEST_CHANGE * min(sides):
        return None
    centres = (a[:2] + a[2:]) / 2, (b[:2] + b[2:]) / 2
    distance = float(np.hypot(*(centres[0] - centres[1]))) / (sum(sides) / 2)
    return distance if distance <= _FURTHEST else None


def _side(box: Floats) -> float:
    return float(np.sqrt(max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])))


def _shots(frames: list[int], same_scene: SameScene) -> list[list[int]]:
    """Split the frames in which a person is seen where another scene is between two of them."""
    shots = [frames[:1]]
    for before, frame in itertools.pairwise(frames):
        if all(same_scene(before, other) for other in range(before + 1, frame + 1)):
            shots[-1].append(frame)
        else:
            shots.append([frame])
    return shots


def square(box: Floats, margin: float) -> tuple[int, int, int]:
    """A square crop around a box (left, top, right, bottom): left, top, side; it may extend beyond the image.

    Args:
        box: in pixels, [4].
        margin: added on each side, as a fraction of the box's larger side.
    """
    side = max(1, round((box[2:] - box[:2]).max() * (1 + 2 * margin)))
    left, top = np.rint((box[:2] + box[2:]) / 2 - side / 2)
    return int(left), int(top), side


def crop(image: Image, square: tuple[int, int, int]) -> Image:
    """Crop a square (left, top, side) from an image, with black outside the image."""
    left, top, side = square
    return np.asarray(Pillow.fromarray(image).crop((left, top, left + side, top + side)), np.uint8)


class Scenes:
    """Tells whether two sampled frames of a clip, given in order, show the same scene.

    Args:
        images: RGB, of any size.
    """

    def __init__(self, images: Sequence[Image]) -> None:
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
        """Whether two frames, given by index, show the same scene."""
        if self._pixels(a, b) <= max(_PIXELS, _OUTSTANDING * self._usual):
            return True
        return float(np.abs(self._colours[a] - self._colours[b]).sum()) / 2 <= _COLOURS

    def _pixels(self, a: int, b: int) -> float:
        return float(np.abs(self._small[a] - self._small[b]).mean())

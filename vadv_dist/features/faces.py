"""The face branch of one clip: find faces in sampled frames, follow one person, and crop the face.

Shape letters: T frames, F faces of a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vadv_dist.config.extract_sections import FacesConfig
from vadv_dist.errors import UserError
from vadv_dist.features import openface
from vadv_dist.features.frames import Image, Span, Video
from vadv_dist.features.listing import ListedClip, path_tails
from vadv_dist.features.openface_times import recording_of
from vadv_dist.features.timeline import BadClipError
from vadv_dist.features.tracks import Floats, Scenes, Track, choose_person, crop, follow, square
from vadv_dist.features.upright import Turn
from vadv_dist.features.yunet import YuNet
from vadv_dist.storage import Location, location

# Landmarks may be outside the picture if the face is partly outside; most of the time they are inside.
_INSIDE = 0.9
_NOBODY: Floats = np.zeros((0, 4))


@dataclass(frozen=True)
class FaceFrame:
    """A sampled frame.

    Attributes:
        time_s: time in a player.
        image: the upright image, possibly scaled down.
        coded_size: width and height in the file, in pixels.
        turn: the transformation that made it upright.
    """

    time_s: float
    image: Image
    coded_size: tuple[int, int]
    turn: Turn


@dataclass(frozen=True)
class ClipFace:
    """The face of a clip.

    Attributes:
        crops: one per frame; None if the clip has no face.
        seen: number of frames in which the person was found.
        boxes: box of each frame as fractions of width and height, T × (left, top, right, bottom); None if unknown
            (aligned crops) or if there is no face.
        missing: why there is no face.
    """

    crops: list[Image] | None = None
    seen: int = 0
    boxes: list[list[float]] | None = None
    missing: str | None = None


class FaceFinder:
    """Finds the faces of clips.

    Args:
        config: the detector, or the tool whose output is read.
    Raises:
        UserError: the detector or OpenFace's folder does not exist.
    """

    def __init__(self, config: FacesConfig) -> None:
        self._config = config
        self._detector: YuNet | None = None
        if config.kind == "yunet":
            self._detector = YuNet(config.path or "", min_score=config.min_score, longest_side=config.detect_side)
        else:
            self._folder = location(config.path or "")
            if not self._folder.is_dir():
                raise UserError(
                    f"{self._folder} is not a folder. Set faces.path to OpenFace's output folder (-out_dir)."
                )

    def find(self, clip: ListedClip, video: Video, span: Span, frames: Sequence[FaceFrame]) -> ClipFace:
        """Find the face of one clip.

        Args:
            clip: the clip's row of the list.
            video: its file.
            span: its part of the video.
            frames: frames sampled from it; frames of one picture may share an image.
        Raises:
            BadClipError: OpenFace's output is damaged, or does not belong to this clip.
        """
        if self._detector is not None:
            return self._follow(frames, self._detected(self._detector, frames), list(range(len(frames))))
        output = openface.find_output(self._folder, clip.names)
        if output is None:
            shared = [name for name in path_tails(clip.path) if name not in clip.names]
            if openface.find_output(self._folder, shared) is not None:
                return ClipFace(missing="OpenFace output under a name that several videos share")
            return ClipFace(missing="no OpenFace output")
        faces = openface.read_faces(output, min_score=self._config.min_score)
        if faces is None:
            return ClipFace(missing="no face found")
        is_part = clip.start_s is not None or clip.end_s is not None
        recording = recording_of(faces.coverage, video, span, is_part=is_part, names_clip=output.name == clip.clip_id)
        rows = [recording.row_at(faces.coverage, frame.time_s) for frame in frames]
        if output.landmarks is None:
            return self._follow(frames, faces.boxes, rows, faces.crops)
        if len({(frame.coded_size, frame.turn) for frame in frames}) > 1:
            raise BadClipError("wrong OpenFace output: the size of the video changes, so landmarks cannot be mapped")
        return self._follow(frames, to_shares(faces.boxes, frames[0], output.landmarks.name), rows, faces.crops)

    def _detected(self, detector: YuNet, frames: Sequence[FaceFrame]) -> list[Floats]:
        found: dict[int, Floats] = {}
        for image in (frame.image for frame in frames):
            if id(image) not in found:
                height, width = image.shape[:2]
                found[id(image)] = detector.detect(image) / np.array([width, height] * 2, np.float64)
        return [found[id(frame.image)] for frame in frames]

    def _follow(
        self,
        frames: Sequence[FaceFrame],
        shares: Sequence[Floats],
        rows: Sequence[int | None],
        crops: Sequence[Sequence[Location]] = (),
    ) -> ClipFace:
        """Follow one person through the frames.

        Args:
            frames: the sampled frames.
            shares: boxes as fractions of width and height, row by row, each [F, 4]; a file may have more rows than
                there are frames.
            rows: the row of each frame; None if it has none.
            crops: the aligned crops of these boxes; if there are none, faces are cut from the frames.
        """
        height, width = frames[0].image.shape[:2]
        unit = np.array([width, height] * 2, np.float64)  # lengths with equal horizontal and vertical units
        scenes = Scenes([frame.image for frame in frames])
        # Use all rows from the first sampled frame to the last, because a face moves less from row to row.
        known = [(row, frame) for frame, row in enumerate(rows) if row is not None]
        first, last = (known[0][0], known[-1][0]) if known else (0, -1)
        nearest = [min(known, key=lambda pair: abs(pair[0] - row))[1] for row in range(first, last + 1)]
        person = choose_person(
            [boxes * unit for boxes in shares[first : last + 1]], lambda a, b: scenes.same(nearest[a], nearest[b])
        )
        seen = {frame: person[row - first] for row, frame in known if row - first in person}
        found = [_NOBODY if row is None else shares[row] for row in rows]
        config = self._config
        track = follow(found, seen, scenes.same, min_share=config.min_share, smoothing=config.smoothing)
        if track is None:
            with_face = sum(len(boxes) > 0 for boxes in found)
            return ClipFace(seen=with_face, missing="a face in too few frames" if with_face else "no face found")
        if not crops:
            return self._cut(frames, track)
        row_of = {frame: row for row, frame in known}
        # A frame without a crop uses the nearest one.
        sources = [min(track.seen, key=lambda seen: abs(seen - frame)) for frame in range(len(frames))]
        return ClipFace([openface.read_crop(crops[row_of[s]][track.seen[s]]) for s in sources], len(track.seen))

    def _cut(self, frames: Sequence[FaceFrame], track: Track) -> ClipFace:
        """Cut the face from the frames."""
        crops = []
        for source, box in zip(track.sources, track.boxes, strict=True):
            image = frames[source].image
            height, width = image.shape[:2]
            crops.append(crop(image, square(box * [width, height, width, height], self._config.margin)))
        return ClipFace(crops, len(track.seen), track.boxes.round(4).tolist())


def to_shares(boxes: Sequence[Floats], frame: FaceFrame, name: str) -> list[Floats]:
    """Convert boxes in pixels of OpenFace's input to fractions of the upright picture.

    Versions of OpenFace differ in whether they rotate a phone's video upright; the position of most landmarks tells
    which.

    Args:
        boxes: per frame, [F, 4].
        frame: a frame of the video.
        name: name of the file, for messages.
    Raises:
        BadClipError: they are outside the picture, or the rotation is ambiguous.
    """
    flat = np.concatenate([np.zeros((0, 4)), *boxes])
    centres = (flat[:, :2] + flat[:, 2:]) / 2

    def inside(size: tuple[int, int]) -> bool:
        within = (centres >= 0).all(axis=1) & (centres <= np.array(size)).all(axis=1)
        return not len(within) or within.mean() >= _INSIDE

    coded = frame.coded_size
    shown = coded[::-1] if frame.turn.transposed else coded
    as_coded, as_shown = inside(coded), inside(shown)
    if not as_coded and not as_shown:
        raise BadClipError(
            f"wrong OpenFace output: the landmarks of {name} are outside the picture of {shown[0]} × {shown[1]} pixels"
        )
    if frame.turn and as_coded and as_shown and len(flat):
        raise BadClipError(
            f"wrong OpenFace output: the video is rotated, and {name} does not tell whether OpenFace rotated it. "
            "Encode the clip upright and run OpenFace again"
        )
    if as_shown:
        return [b / np.array(shown * 2) for b in boxes]
    return [frame.turn.boxes(b / np.array(coded * 2)) for b in boxes]

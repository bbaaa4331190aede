"""The stages of a batch of clips: read (decode, find faces), encode images, score expressions.

Plain classes without Ray: `extract` runs them as a pipeline or, one after the other, in one process. Faces are cropped
where a clip is decoded, so that its frames (tens of megabytes) are not moved.

Shape letters: K accepted clips of a batch, M of them with a face, T visual frames, F face frames, S and C sides of the
encoders' inputs, N tokens per frame, D width, E expression scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from vadv_dist.config.extract_sections import ExtractConfig, Precision
from vadv_dist.data.schema import Array
from vadv_dist.errors import UserError, VadvError, require_memory
from vadv_dist.features.clip_files import open_hashed
from vadv_dist.features.faces import ClipFace, FaceFinder, FaceFrame
from vadv_dist.features.frames import Image, Video, to_image
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.timeline import BadClipError, Timeline
from vadv_dist.features.upright import Picture

if TYPE_CHECKING:
    import torch


Located = list[tuple[ListedClip, str]]
"""Clips with the locations of their files."""

Branch = Literal["visual", "face"]
BRANCHES: tuple[Branch, ...] = ("visual", "face")


@dataclass(frozen=True)
class StageSpec:
    """Settings for every process of an extraction.

    Attributes:
        visual, face: preprocessing of each branch; None if it has no encoder.
    """

    config: ExtractConfig
    visual: Preprocessing | None
    face: Preprocessing | None
    precision: Precision

    @property
    def branches(self) -> list[Branch]:
        """The branches with an encoder."""
        return [branch for branch in BRANCHES if getattr(self, branch) is not None]


@dataclass(frozen=True)
class ClipReport:
    """The result of reading one clip.

    Attributes:
        reason: why it was rejected; None if it was accepted.
        bytes, sha256: of its file; 0 and empty if it could not be read.
        start_s, end_s: its part of the video, in player time.
        width, height: of the displayed video, in square pixels.
        faces: number of face frames in which the followed person was found or, if nobody is followed, with a face.
        boxes: smoothed face box of each face frame as fractions of width and height, F × (left, top, right, bottom);
            None if the clip has no face or the boxes are unknown (aligned crops).
        has_face: whether the clip has face features.
        no_face: why it has none, if faces are extracted.
        text: its words, if they were transcribed.
    """

    clip_id: str
    reason: str | None = None
    bytes: int = 0
    sha256: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    width: int = 0
    height: int = 0
    faces: int = 0
    boxes: list[list[float]] | None = None
    has_face: bool = False
    no_face: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class ClipBatch:
    """Clips passing through the stages.

    Attributes:
        number: number of the batch, in the order of the list.
        reports: one per listed clip.
        visual: of accepted clips: first bytes [K, T, S, S, 3], then features [K, T, N, D].
        face: of accepted clips with a face: first bytes [M, F, C, C, 3], then scores [M, F, E].
    """

    number: int
    reports: list[ClipReport]
    visual: Array | None = None
    face: Array | None = None


ReadClip = tuple[ClipReport, Array | None, Array | None]
"""A clip's report, frames [T, S, S, 3] and face crops [F, C, C, 3]; None if it has none."""


def as_batch(spec: StageSpec, number: int, clips: Sequence[ReadClip]) -> ClipBatch:
    """Stack the images of clips as a batch, in which only the encoded branches are not None."""

    def stacked(images: list[Array | None]) -> Array:
        some = [each for each in images if each is not None]
        return np.stack(some) if some else np.zeros((0, 0, 0, 0, 3), np.uint8)

    reports, visual, face = (list(part) for part in zip(*clips, strict=True))
    return ClipBatch(
        number,
        reports,
        visual=None if spec.visual is None else stacked(visual),
        face=None if spec.face is None else stacked(face),
    )


class ClipReader:
    """Reads clips in one pass: frames for both branches, faces, crops.

    Args:
        spec: the frames and faces to read, and their preprocessing.
    Raises:
        UserError: the detector or OpenFace's folder does not exist.
    """

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec
        self._faces = FaceFinder(spec.config.faces) if spec.config.faces.kind != "none" else None
        # In most lists, clips of one video are consecutive.
        self._read_last: tuple[str, Timeline] | None = None

    def read(self, number: int, clips: Located) -> ClipBatch:
        """Read a batch of (clip, location of its file); a bad clip is reported and left out.

        Raises:
            VadvError: an object store denies access or does not respond, or the memory is full.
        """
        return as_batch(self._spec, number, [self.read_clip(clip, location) for clip, location in clips])

    def read_clip(self, clip: ListedClip, location: str) -> ReadClip:
        """Read one clip; a bad one has only a report.

        Raises:
            VadvError: as in `read`.
        """
        try:
            return self._read(clip, location)
        except BadClipError as error:
            reason = str(error)
        except VadvError:  # from an object store: not the clip's fault, so others would fail too
            raise
        except Exception as error:  # decoders may raise anything on a damaged file; continue with the others
            require_memory()
            reason = f"unreadable: {type(error).__name__}: {error}"[:200]
        return ClipReport(clip.clip_id, reason=reason), None, None

    def _read(self, clip: ListedClip, location: str) -> ReadClip:
        if clip.fault is not None:
            raise BadClipError(clip.fault)
        config, visual, face = self._spec.config, self._spec.visual, self._spec.face
        file, size, digest = open_hashed(location)
        known = self._read_last[1] if self._read_last is not None and self._read_last[0] == digest else None
        with file, Video(file, timeline=known) as video:
            self._read_last = digest, video.timeline
            span = video.span(clip.start_s, clip.end_s)
            visual_times = span.middles(config.frames.visual) if visual is not None else []
            face_times = span.middles(config.frames.face) if face is not None else []
            wanted = sorted({*visual_times, *face_times})
            visual_of: dict[float, Image] = {}
            face_of: dict[float, FaceFrame] = {}
            seen: tuple[Picture, Image] | None = None
            for i, picture in video.frames(wanted):
                time = wanted[i]
                if visual is not None and time in visual_times:
                    visual_of[time] = visual.resized(to_image(picture))
                if time in face_times:
                    # If there are fewer frames than times, neighbours share one image.
                    if seen is None or seen[0] is not picture:
                        seen = (picture, to_image(picture, config.frames.face_side))
                    face_of[time] = FaceFrame(time, seen[1], picture.coded_size, picture.turn)
            found = ClipFace()
            if self._faces is not None:
                found = self._faces.find(clip, video, span, [face_of[time] for time in face_times])
            width, height = video.size
        report = ClipReport(
            clip.clip_id,
            bytes=size,
            sha256=digest,
            start_s=span.start_s,
            end_s=span.end_s,
            width=width,
            height=height,
            faces=found.seen,
            boxes=found.boxes,
            has_face=found.crops is not None,
            no_face=found.missing,
        )
        frames = np.stack([visual_of[time] for time in visual_times]) if visual is not None else None
        crops = np.stack([face.resized(crop) for crop in found.crops]) if face is not None and found.crops else None
        return report, frames, crops


class EncodingStage:
    """Replaces the images of one branch by its encoder's features, all images of a batch at once.

    Args:
        branch: the branch, which has an encoder.
        spec: settings of the encoder.
        device: device of the encoder.
    """

    def __init__(self, branch: Branch, spec: StageSpec, device: "torch.device") -> None:
        from vadv_dist.features.encoders import ImageEncoder
        from vadv_dist.features.expression import ExpressionEncoder

        self._branch = branch
        self._encoder: ImageEncoder | ExpressionEncoder
        if branch == "visual":
            image = spec.config.image
            self._encoder = ImageEncoder(image.encoder or "", image.tokens, device=device, precision=spec.precision)
        else:
            self._encoder = ExpressionEncoder(spec.config.expression, device=device, precision=spec.precision)

    def run(self, batch: ClipBatch) -> ClipBatch:
        """Encode one batch."""
        images: npt.NDArray[np.uint8] = getattr(batch, self._branch)
        if not len(images):
            return batch
        features = self._encoder.encode(images.reshape(-1, *images.shape[2:]))
        features = features.reshape(*images.shape[:2], *features.shape[1:])
        return replace(batch, visual=features) if self._branch == "visual" else replace(batch, face=features)


def in_process(spec: StageSpec, batches: Iterator[Located]) -> Iterator[ClipBatch]:
    """Run the stages one after the other, without Ray."""
    device = choose_device(spec.config.compute.use_gpu)
    reader = ClipReader(spec)
    stages = [EncodingStage(branch, spec, device) for branch in spec.branches]
    for number, clips in enumerate(batches):
        batch = reader.read(number, clips)
        for stage in stages:
            batch = stage.run(batch)
        yield batch


def choose_device(use_gpu: bool | Literal["auto"]) -> "torch.device":
    """The GPU visible to this process if it may be used, else the CPU.

    Raises:
        UserError: a GPU is required and there is none.
    """
    import torch

    is_available = torch.cuda.is_available()
    if use_gpu is True and not is_available:
        raise UserError("compute.use_gpu is true, but PyTorch finds no GPU here. Set it to auto or false.")
    return torch.device("cuda" if is_available and use_gpu is not False else "cpu")

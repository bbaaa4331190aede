"""The three stages of a batch of clips: read (decode, find faces), encode images, score expressions.

Plain classes without Ray: `extract` runs them as a pipeline or, one after the other, in one process. Faces are cropped
where a clip is decoded, so that its frames (tens of megabytes) are not moved.

Shape letters: K accepted clips of a batch, M of them with a face, T visual frames, F face frames, S and C sides of the
encoders' inputs, N tokens per frame, D width, E expression scores.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vadv_dist.config.extract_sections import ExtractConfig, Precision
from vadv_dist.data.schema import Array
from vadv_dist.errors import UserError, VadvError
from vadv_dist.features.clip_files import open_hashed
from vadv_dist.features.faces import FaceFinder, FaceFrame
from vadv_dist.features.frames import Image, Video, to_image
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.timeline import BadClipError, Timeline

if TYPE_CHECKING:
    import torch


Located = list[tuple[ListedClip, str]]
"""Clips with the locations of their files."""


@dataclass(frozen=True)
class Preparations:
    """The encoders' settings that the reading stage needs: None for a missing encoder."""

    visual: Preprocessing | None
    face: Preprocessing | None


@dataclass(frozen=True)
class StageSpec:
    """Settings for every process of an extraction."""

    config: ExtractConfig
    preparations: Preparations
    precision: Precision


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


class ClipReader:
    """Reads clips in one pass: frames for both branches, faces, crops.

    Args:
        spec: the frames and faces to read, and the encoders' input sizes.
    Raises:
        UserError: the detector or OpenFace's folder does not exist.
    """

    def __init__(self, spec: StageSpec) -> None:
        self._config, self._preparations = spec.config, spec.preparations
        self._faces = FaceFinder(spec.config.faces) if spec.config.faces.kind != "none" else None
        # In most lists, clips of one video are consecutive.
        self._read_last: tuple[str, Timeline] | None = None

    def read(self, number: int, clips: Located) -> ClipBatch:
        """Read a batch of (clip, location of its file); a bad clip is reported and left out.

        Raises:
            VadvError: an object store denies access or does not respond.
        """
        reports, visual, face = [], [], []
        for clip, location in clips:
            try:
                report, frames, crops = self._read(clip, location)
            except BadClipError as error:
                reports.append(ClipReport(clip.clip_id, reason=str(error)))
                continue
            except VadvError:  # from an object store: not the clip's fault, so others would fail too
                raise
            except Exception as error:  # decoders may raise anything on a damaged file; continue with the others
                reports.append(ClipReport(clip.clip_id, reason=f"unreadable: {type(error).__name__}: {error}"[:200]))
                continue
            reports.append(report)
            if frames is not None:
                visual.append(frames)
            if crops is not None:
                face.append(crops)
        return ClipBatch(
            number,
            reports,
            None if self._preparations.visual is None else _stacked(visual),
            None if self._preparations.face is None else _stacked(face),
        )

    def _read(self, clip: ListedClip, location: str) -> tuple[ClipReport, Array | None, Array | None]:
        if clip.fault is not None:
            raise BadClipError(clip.fault)
        config, (visual, face) = self._config, (self._preparations.visual, self._preparations.face)
        file, size, digest = open_hashed(location)
        known = self._read_last[1] if self._read_last is not None and self._read_last[0] == digest else None
        with file, Video(file, timeline=known) as video:
            self._read_last = digest, video.timeline
            span = video.span(clip.start_s, clip.end_s)
            visual_times = span.middles(config.frames.visual) if visual is not None else []
            face_times = span.middles(config.frames.face) if face is not None else []
            wanted = sorted({*visual_times, *face_times})
            places: dict[float, int] = {time: i for i, time in enumerate(wanted)}
            for_visual, for_face = {places[t] for t in visual_times}, {places[t] for t in face_times}
            visual_of: dict[int, Image] = {}
            face_of: dict[int, FaceFrame] = {}
            seen: tuple[Any, Image] | None = None
            for i, picture in video.frames(wanted):
                if i in for_visual and visual is not None:
                    visual_of[i] = visual.resized(to_image(picture))
                if i in for_face:
                    # If there are fewer frames than times, neighbours share one image.
                    if seen is None or seen[0] is not picture:
                        seen = (picture, to_image(picture, config.frames.face_side))
                    face_of[i] = FaceFrame(wanted[i], seen[1], picture.coded_size, picture.turn)
            report = ClipReport(
                clip.clip_id,
                bytes=size,
                sha256=digest,
                start_s=span.start_s,
                end_s=span.end_s,
                width=video.size[0],
                height=video.size[1],
            )
            frames = np.stack([visual_of[places[t]] for t in visual_times]) if visual is not None else None
            if face is None or self._faces is None:
                return report, frames, None
            found = self._faces.find(clip, video, span, [face_of[places[t]] for t in face_times])
        report = replace(
            report, faces=found.seen, boxes=found.boxes, has_face=found.crops is not None, no_face=found.missing
        )
        return report, frames, None if found.crops is None else np.stack([face.resized(c) for c in found.crops])


class EncodeImages:
    """Replaces a batch's frames by the image encoder's features, all frames at once.

    Args:
        spec: settings of the encoder.
        device: device of the encoder.
    """

    def __init__(self, spec: StageSpec, device: "torch.device") -> None:
        from vadv_dist.features.encoders import ImageEncoder

        image = spec.config.image
        assert image.encoder is not None
        self._encoder = ImageEncoder(image.encoder, image.tokens, device=device, precision=spec.precision)

    def run(self, batch: ClipBatch) -> ClipBatch:
        """Encode one batch."""
        assert batch.visual is not None
        return replace(batch, visual=_through(batch.visual, self._encoder.encode))


class ScoreExpressions:
    """Replaces a batch's face crops by the expression encoder's scores, all crops at once.

    Args:
        spec: settings of the encoder.
        device: device of the encoder.
    """

    def __init__(self, spec: StageSpec, device: "torch.device") -> None:
        from vadv_dist.features.expression import ExpressionEncoder

        self._encoder = ExpressionEncoder(spec.config.expression, device=device, precision=spec.precision)

    def run(self, batch: ClipBatch) -> ClipBatch:
        """Score one batch."""
        assert batch.face is not None
        return replace(batch, face=_through(batch.face, self._encoder.encode))


def encoder_stages(spec: StageSpec) -> list[type[EncodeImages] | type[ScoreExpressions]]:
    """The stages after reading."""
    stages: list[type[EncodeImages] | type[ScoreExpressions]] = []
    if spec.preparations.visual is not None:
        stages.append(EncodeImages)
    if spec.preparations.face is not None:
        stages.append(ScoreExpressions)
    return stages


def in_process(spec: StageSpec, batches: Iterator[Located]) -> Iterator[ClipBatch]:
    """Run the stages one after the other, without Ray."""
    device = choose_device(spec)
    reader = ClipReader(spec)
    stages = [stage(spec, device) for stage in encoder_stages(spec)]
    for number, clips in enumerate(batches):
        batch = reader.read(number, clips)
        for stage in stages:
            batch = stage.run(batch)
        yield batch


def choose_device(spec: StageSpec) -> "torch.device":
    """The GPU visible to this process if the configuration allows one, else the CPU.

    Raises:
        UserError: a GPU is required and there is none.
    """
    import torch

    wanted, there = spec.config.compute.use_gpu, torch.cuda.is_available()
    if wanted is True and not there:
        raise UserError("compute.use_gpu is true, but PyTorch finds no GPU here. Set it to auto or false.")
    return torch.device("cuda" if there and wanted is not False else "cpu")


def _through(images: Array, encode: Callable[[Any], Array]) -> Array:
    clips, frames = images.shape[:2]
    if not clips:
        return np.zeros((0, 0), np.float32)
    features = encode(images.reshape(clips * frames, *images.shape[2:]))
    return features.reshape(clips, frames, *features.shape[1:])


def _stacked(images: list[Array]) -> Array:
    return np.stack(images) if images else np.zeros((0, 0, 0, 0, 3), np.uint8)

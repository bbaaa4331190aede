"""Read frames of a clip in one pass over its file, seeking if that saves decoding.

The frame at a time is the one with the largest presentation time that is not later. Times are those of a player and of
`ffmpeg -ss`: 0 is the start of the file's earliest stream, which may be audio.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import av
import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.container import InputContainer
from av.video.frame import PictureType

from vadv_dist.features.listing import WRONG_TIMES
from vadv_dist.features.timeline import END_TOLERANCE_S, BadClipError, Timeline, choose_stream, read_timeline
from vadv_dist.features.upright import Picture, picture_of

Image = npt.NDArray[np.uint8]
"""Height × width × RGB."""

READER_VERSION = 2
"""Increased when other frames, sizes or faces would be read from the same files."""

# 8K; as RGB, a frame of this size takes 100 MB.
MAX_PIXELS = 8192 * 4320
# Cost of a seek in decoded frames: it discards the decoder's state.
_SEEK_FRAMES = 4
# A container may seek past a key frame, so we request times this far before it, in seconds.
_BACK_S = (0.0, 1.0, 10.0)


@dataclass(frozen=True)
class Span:
    """The part of a video that is a clip, in player time."""

    start_s: float
    end_s: float

    def middles(self, count: int) -> list[float]:
        """`count` times: the midpoints of equal parts."""
        length = self.end_s - self.start_s
        return [self.start_s + (i + 0.5) / count * length for i in range(count)]


class Video:
    """A video opened for reading: its span, and its frames at given times.

    Args:
        file: result of `open_clip`, which the caller closes.
        seek: whether seeking is allowed (it changes the speed, never the frames).
        timeline: timeline of this file, if already known.
    Raises:
        BadClipError: not a video, or without a video stream.
    """

    def __init__(self, file: IO[bytes], *, seek: bool = True, timeline: Timeline | None = None) -> None:
        self._file, self._seek = file, seek
        self.decoded = 0
        """Number of frames decoded so far, for tests and measurements."""
        self._open()
        if timeline is None:
            try:
                timeline = read_timeline(self._container, self._stream)
            finally:
                self._container.close()
            self._open()
        self.timeline = timeline
        self._begun: Iterator[tuple[int, Picture]] | None = None  # what follows the first frame

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _open(self) -> None:
        self._file.seek(0)
        try:
            self._container: InputContainer = av.open(self._file, mode="r", metadata_errors="ignore")
        except av.EOFError:
            raise BadClipError("zero length") from None
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _unreadable(error) from None
        try:
            self._stream = choose_stream(self._container)
            context = self._stream.codec_context
            if context.width * context.height > MAX_PIXELS:
                raise BadClipError(f"too large: {context.width} × {context.height} pixels")
        except BadClipError:
            self._container.close()
            raise
        context.options = {"max_pixels": str(MAX_PIXELS)}  # the frame size may grow within a video
        self._stream.thread_count = 1  # clips are read in parallel, and their threads would compete

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame as displayed, in square pixels."""
        return self._first[1].size

    @cached_property
    def shown_s(self) -> list[float]:
        """Player time of each decodable frame, in seconds."""
        first = self._first[0]
        return [self.timeline.seconds(pts) for pts in self.timeline.shown if pts >= first]

    @property
    def whole(self) -> Span:
        """From the first frame to the end of the last."""
        return Span(self.timeline.seconds(self._first[0]), self.timeline.seconds(self.timeline.end))

    def span(self, start_s: float | None, end_s: float | None) -> Span:
        """The clip's part of the video, clamped to the end of the video.

        Args:
            start_s, end_s: player times; None is the start or end of the video.
        Raises:
            BadClipError: the video has no length or is truncated, or the times are outside it.
        """
        whole = self.whole
        if whole.end_s <= whole.start_s:
            raise BadClipError("zero length")
        if self.timeline.breaks_off and (end_s is None or end_s > whole.end_s):
            raise BadClipError(f"truncated: the video breaks off at {whole.end_s:.2f} s")
        start = whole.start_s if start_s is None else start_s
        if start >= whole.end_s:
            raise BadClipError(f"{WRONG_TIMES}: it starts at {start:g} s, but the video ends at {whole.end_s:.2f} s")
        if start < whole.start_s - END_TOLERANCE_S:
            raise BadClipError(f"{WRONG_TIMES}: it starts at {start:g} s, before the video at {whole.start_s:.2f} s")
        if end_s is not None and end_s > whole.end_s + END_TOLERANCE_S:
            raise BadClipError(f"{WRONG_TIMES}: it ends at {end_s:g} s, but the video ends at {whole.end_s:.2f} s")
        end = whole.end_s if end_s is None else min(end_s, whole.end_s)
        if end <= max(start, whole.start_s):
            raise BadClipError(f"{WRONG_TIMES}: it ends at {end:g} s but starts at {max(start, whole.start_s):g} s")
        return Span(start, end)

    def frames(self, times_s: Sequence[float]) -> Iterator[tuple[int, Picture]]:
        """Yield (index, picture) for each time, in order; a picture may be yielded several times.

        Args:
            times_s: ascending player times.
        Raises:
            BadClipError: a frame cannot be decoded, frames are out of order, or the video ends before the last time.
        """
        line = self.timeline
        length_of_last_s = float((line.end - line.shown[-1]) * line.base)
        held: tuple[int, Picture] | None = None
        with _decoding():
            source = self._from_beginning()
            upcoming = next(source, None)
            for index, wanted in enumerate(times_s):
                at = line.pts_at(wanted)
                if upcoming is not None and (key := self._key_worth_seeking(upcoming[0], at)) is not None:
                    found = self._decoded_at(key, line.frame_at(at))
                    if found is not None:
                        held, source = found
                    else:
                        self._seek, held, source = False, None, self._from_beginning()
                    upcoming = next(source, None)
                while upcoming is not None and (held is None or upcoming[0] <= at):
                    if held is not None and upcoming[0] < held[0]:
                        back = line.seconds(held[0]), line.seconds(upcoming[0])
                        raise BadClipError(f"out of order: a frame at {back[1]:.2f} s follows {back[0]:.2f} s")
                    held, upcoming = upcoming, next(source, None)
                if held is None:
                    raise BadClipError("zero length")
                if upcoming is None and wanted > line.seconds(held[0]) + END_TOLERANCE_S + length_of_last_s:
                    raise BadClipError(f"truncated: the last frame is at {line.seconds(held[0]):.2f} s")
                yield index, held[1]

    def _key_worth_seeking(self, here: int, at: int) -> int | None:
        key = self.timeline.key_before(at) if self._seek else None
        if key is None or key <= here or self.timeline.frames_between(here, key) <= _SEEK_FRAMES:
            return None
        return key

    def _decoded_at(
        self, key: int, wanted: int | None
    ) -> tuple[tuple[int, Picture], Iterator[tuple[int, Picture]]] | None:
        """Decode from a key frame to a frame; None if the container or the decoder does not reach it exactly."""
        base = self.timeline.base
        for back_s in _BACK_S:
            self._container.seek(key - int(back_s / base), stream=self._stream, backward=True)
            source = self._decoded(key)
            try:
                for pts, picture in source:
                    if pts == wanted:
                        return (pts, picture), source
                    if wanted is None or pts > wanted:
                        return None
            except (av.FFmpegError, OSError, ValueError):
                return None
        return None

    def _from_beginning(self) -> Iterator[tuple[int, Picture]]:
        """All frames, reusing what was decoded to find the first one."""
        first, begun = self._first, self._begun
        self._begun = None
        if begun is not None:
            return itertools.chain([first], begun)
        self._container.close()
        self._open()  # because the result of seeking to the start depends on the container
        return self._decoded(None)

    @cached_property
    def _first(self) -> tuple[int, Picture]:
        """The first frame that can be decoded: streams may start with frames that depend on earlier ones."""
        self._begun = self._decoded(None)
        with _decoding():
            first = next(self._begun, None)
        if first is None:
            raise BadClipError("zero length")
        return first

    def _decoded(self, key: int | None) -> Iterator[tuple[int, Picture]]:
        """Decode the following packets, as (presentation time, picture).

        Args:
            key: presentation time of the key frame to start with; frames shown before it are skipped, since they may
                depend on frames that were not read. Yields nothing if the key frame has been passed. None decodes all.
        """
        shown, in_order = self.timeline.shown, self.timeline.in_order
        number, last = 0, None
        begun, unseen = key is None, key
        for packet in self._container.demux(self._stream):
            if not begun:
                if packet.is_keyframe and packet.pts is not None and packet.pts > (key or 0):
                    return
                begun = packet.is_keyframe and packet.pts == key
                if not begun:
                    continue
            for frame in packet.decode():
                self.decoded += 1
                pts = shown[min(number, len(shown) - 1)] if in_order else _time_of(frame, last)
                number, last = number + 1, pts + (frame.duration or 0)
                if unseen is not None and pts >= unseen:
                    if pts > unseen or frame.pict_type != PictureType.I:
                        return  # a "key frame" that refreshes the picture gradually
                    unseen = None
                if key is None or (pts >= key and not frame.is_corrupt):
                    aspect = self._stream.sample_aspect_ratio or self._stream.codec_context.sample_aspect_ratio
                    yield pts, picture_of(frame, aspect)


def to_image(picture: Picture, longest_side: int | None = None) -> Image:
    """An upright RGB picture, scaled down to a longest side if it is larger.

    Args:
        picture: a picture from `Video.frames`.
        longest_side: in pixels; None keeps the size.
    """
    width, height = picture.size[::-1] if picture.turn.transposed else picture.size
    share = 1.0 if longest_side is None else min(1.0, longest_side / max(width, height))
    wanted = max(1, round(width * share)), max(1, round(height * share))
    frame = picture.frame if wanted == picture.coded_size else picture.frame.reformat(*wanted, "rgb24")
    return picture.turn.image(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))


def _time_of(frame: VideoFrame, expected: int | None) -> int:
    """A frame's presentation time; some program streams store it only for the first frame of each group."""
    if frame.pts is not None:
        return frame.pts
    if expected is None:
        raise BadClipError("no times: a frame has no presentation time")
    return expected


@contextmanager
def _decoding() -> Iterator[None]:
    """Turn a decoder's error into the reason for a clip's rejection."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> BadClipError:
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return BadClipError(f"unreadable: {str(text)[:120]}")

"""Reads the wanted frames of a clip in one pass over its file, seeking where that saves decoding.

The frame at a time is the last one shown by then: that of the largest presentation time that is not later.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vadv_dist.features.listing import WRONG_TIMES

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

Image = npt.NDArray[np.uint8]
"""Height × width × RGB."""

# Containers whose index tells key frames; that of MPEG program streams calls every packet one.
_INDEXED = {"mov", "mp4", "matroska", "webm", "avi", "flv"}
# A seek drops what the decoder has begun and reads anew: worth about so many decoded frames.
_SEEK_FRAMES = 4
# Without an index, a seek goes this far before the time it wants, and is tried for gaps that are longer.
_BLIND_SEEK_S = 5.0
# How far a clip's end may lie past that of its video: labels and containers are cut in tenths, or in whole frames.
END_TOLERANCE_S = 0.5
# Times are computed as binary fractions, and containers may round theirs.
_ROUNDING_S = Fraction(1, 1_000_000)


class BadClipError(Exception):
    """A clip that cannot be read; says why in a few words."""


@dataclass(frozen=True)
class Span:
    """The part of a video that is a clip, in seconds from the video's first frame."""

    start_s: float
    end_s: float

    def middles(self, count: int) -> list[float]:
        """Times of `count` frames: the middles of as many equal parts."""
        length = self.end_s - self.start_s
        return [self.start_s + (i + 0.5) / count * length for i in range(count)]


class Video:
    """A video opened for reading: its span, and its frames at given times.

    Args:
        file: as `open_clip` gives it; stays the caller's to close.
        seek: whether seeking is allowed (it changes the speed, never the frames).
    Raises:
        BadClipError: not a video, or without a video stream.
    """

    def __init__(self, file: IO[bytes], *, seek: bool = True) -> None:
        import av

        self._seek = seek
        self.decoded = 0
        """Frames decoded so far, for tests and measurements."""
        try:
            self._container: InputContainer = av.open(file, mode="r", metadata_errors="ignore")
        except av.EOFError:
            raise BadClipError("zero length") from None
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadClipError(f"unreadable: {_reason(error)}") from None
        streams = [s for s in self._container.streams.video if not _is_cover(s)]
        if not streams:
            self._container.close()
            raise BadClipError("no video stream")
        self._stream: VideoStream = streams[0]
        self._stream.thread_count = 1  # clips are read side by side; a clip's threads would wait for each other
        self._moved = False  # whether anything has been read, so that its beginning has to be sought

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame, in pixels."""
        return self._stream.codec_context.width, self._stream.codec_context.height

    def span(self, start_s: float | None, end_s: float | None) -> Span:
        """The clip's part of the video, its end at most that of the video.

        Raises:
            BadClipError: the video has no length, or the times lie outside it.
        """
        length = self._length(exact=end_s is None)
        if length <= 0:
            raise BadClipError("zero length")
        start = start_s or 0.0
        if start >= length:
            raise BadClipError(f"{WRONG_TIMES}: it starts at {start:g} s, the video ends at {length:.2f} s")
        if end_s is not None and end_s > length + END_TOLERANCE_S:
            raise BadClipError(f"{WRONG_TIMES}: it ends at {end_s:g} s, the video at {length:.2f} s")
        end = length if end_s is None else min(end_s, length)
        if end <= start:
            raise BadClipError(f"{WRONG_TIMES}: it ends at {end:g} s and starts at {start:g} s")
        return Span(start, end)

    def frames(self, times_s: Sequence[float]) -> Iterator[tuple[int, "VideoFrame"]]:
        """Yield (index, frame) for each wanted time, in order; one frame may answer several times.

        Args:
            times_s: ascending times from the video's first frame, in seconds.
        Raises:
            BadClipError: a frame cannot be decoded, or the video ends before the last time.
        """
        import av

        try:
            yield from self._frames(times_s)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadClipError(f"unreadable: {_reason(error)}") from None

    def _frames(self, times_s: Sequence[float]) -> Iterator[tuple[int, "VideoFrame"]]:
        keys = self._key_frames() if self._seek else []
        source = self._decoded(0)
        held: VideoFrame | None = None
        upcoming = next(source, None)
        if upcoming is None:
            raise BadClipError("zero length")
        first = _seconds(upcoming)
        for index, wanted in enumerate(times_s):
            at = first + Fraction(wanted) + _ROUNDING_S
            if upcoming is not None and _seconds(upcoming) <= at and self._worth_seeking(keys, upcoming, at):
                found = self._seek_to(at)
                if found is not None:
                    source, held, upcoming = found[1], None, found[0]
            while upcoming is not None and (held is None or _seconds(upcoming) <= at):
                held, upcoming = upcoming, next(source, None)
            assert held is not None
            if upcoming is None and at > _seconds(held) + Fraction(END_TOLERANCE_S) + _duration(held):
                raise BadClipError(f"truncated: the last frame is at {float(_seconds(held) - first):.2f} s")
            yield index, held

    def _worth_seeking(self, keys: list[Fraction], upcoming: "VideoFrame", at: Fraction) -> bool:
        if not self._seek:
            return False
        here = _seconds(upcoming)
        if self._is_indexed():
            # Index times are decoding times, at most a few frames before those of showing.
            place = bisect.bisect_right(keys, at) - 1
            return place >= 0 and keys[place] > here + _SEEK_FRAMES * _duration(upcoming)
        return at - here > 2 * _BLIND_SEEK_S

    def _seek_to(self, at: Fraction) -> "tuple[VideoFrame, Iterator[VideoFrame]] | None":
        """First key frame that can be had before a time, and what follows; None where seeking does not get there."""
        base = self._stream.time_base or Fraction(1)
        back = Fraction(0) if self._is_indexed() else Fraction(_BLIND_SEEK_S)
        for _ in range(3):
            source = self._decoded(int((at - back) / base))
            # What comes before a key frame may lean on frames that were not read.
            begin = next((frame for frame in source if frame.key_frame), None)
            if begin is not None and _seconds(begin) <= at:
                return begin, source
            back = back * 2 + 1
        self._seek = False
        source = self._decoded(0)
        begin = next(source, None)
        return None if begin is None else (begin, source)

    def _decoded(self, offset: int) -> "Iterator[VideoFrame]":
        if self._moved:
            first = self._stream.start_time or 0
            self._container.seek(max(offset, first) if offset else first, stream=self._stream, backward=True)
        self._moved = True
        for packet in self._container.demux(self._stream):
            for frame in packet.decode():
                self.decoded += 1
                if frame.pts is not None:
                    yield frame

    def _is_indexed(self) -> bool:
        return bool(_INDEXED & set(self._container.format.name.split(",")))

    def _key_frames(self) -> list[Fraction]:
        base = self._stream.time_base or Fraction(1)
        if not self._is_indexed():
            return []
        entries: Any = self._stream.index_entries
        return sorted(entry.timestamp * base for entry in entries if entry.is_keyframe)

    def _length(self, *, exact: bool) -> float:
        """Length of the video stream; where no index says it, packets are read (not decoded) to its end.

        Args:
            exact: whether the container's length, which may be that of its sound, is not enough.
        """
        import av

        stream = self._stream
        base = stream.time_base or Fraction(1)
        if stream.duration and self._is_indexed():  # elsewhere it is guessed from the bit rate
            return float(stream.duration * base)
        if not exact and self._container.duration:
            return self._container.duration / av.time_base
        first, last = None, Fraction(0)
        self._moved = True
        try:
            for packet in self._container.demux(stream):
                if packet.pts is not None:
                    first = packet.pts if first is None else min(first, packet.pts)
                    last = max(last, (packet.pts + (packet.duration or 0)) * base)
        except av.EOFError:
            pass
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadClipError(f"unreadable: {_reason(error)}") from None
        return 0.0 if first is None else float(last - first * base)


def to_image(frame: "VideoFrame", longest_side: int | None = None) -> Image:
    """A frame as RGB, scaled down to a longest side where it is longer.

    Args:
        frame: as decoded.
        longest_side: in pixels; None keeps its size.
    """
    width, height = frame.width, frame.height
    share = 1.0 if longest_side is None else min(1.0, longest_side / max(width, height))
    if share < 1:
        frame = frame.reformat(max(1, round(width * share)), max(1, round(height * share)), "rgb24")
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def _seconds(frame: "VideoFrame") -> Fraction:
    return Fraction(frame.pts or 0) * (frame.time_base or Fraction(1))


def _duration(frame: "VideoFrame") -> Fraction:
    return Fraction(frame.duration or 0) * (frame.time_base or Fraction(1))


def _is_cover(stream: "VideoStream") -> bool:
    """Whether a stream is the picture on a music file's cover."""
    return bool(stream.disposition & stream.disposition.attached_pic)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return str(text)[:120]

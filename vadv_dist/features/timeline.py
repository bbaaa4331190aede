"""The presentation times of a video's frames, read from its packets without decoding.

Containers store this in many ways or not at all: an index, times with any start, key frames that depend on earlier
frames, frames hidden by an edit list. The packets of the whole file are the one source they all have.
"""

import bisect
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

# Tolerance for what a container or a list of clips declares: both round to tenths of seconds.
END_TOLERANCE_S = 0.5
# Times are computed in binary floating point.
_ROUNDING_S = Fraction(2, 1_000_000)
# Coarsest unit of rounded times (Matroska's milliseconds); longer units are frame durations, which are exact.
_LARGEST_UNIT_S = Fraction(1, 1000)
# Containers whose declared duration is reliable, not estimated from the bit rate.
_DECLARE_DURATION = {"matroska", "webm", "avi", "flv"}


class BadClipError(Exception):
    """A clip that cannot be read, with a brief reason."""


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a video's frames, in units of `base`.

    Attributes:
        base: seconds per unit.
        zero_s: the time that a player shows as 0: the earliest start of all streams of the file.
        shown: presentation time of each frame, ascending.
        end: end of the last frame.
        keys: presentation times of the key frames, ascending.
        in_order: whether frames have no usable times, so that the n-th decoded frame is shown at `shown[n]`.
        breaks_off: whether the file ends before its declared end, or cannot be read to its end.
    """

    base: Fraction
    zero_s: Fraction
    shown: list[int]
    end: int
    keys: list[int]
    in_order: bool
    breaks_off: bool

    def seconds(self, pts: int) -> float:
        """Convert a presentation time to player time."""
        return float(pts * self.base - self.zero_s)

    def pts_at(self, time_s: float) -> int:
        """Largest presentation time that is not later than a player time; rounded times count as equal."""
        rounding = min(self.base / 2, _LARGEST_UNIT_S / 2) + _ROUNDING_S
        return int((self.zero_s + Fraction(time_s) + rounding) // self.base)

    def frame_at(self, pts: int) -> int | None:
        """Presentation time of the frame shown at a player time."""
        place = bisect.bisect_right(self.shown, pts)
        return self.shown[place - 1] if place else None

    def key_before(self, pts: int) -> int | None:
        """The last key frame at or before a time; all frames after it can be decoded from it."""
        place = bisect.bisect_right(self.keys, pts)
        return self.keys[place - 1] if place else None

    def frames_between(self, first: int, last: int) -> int:
        """Number of frames shown from one time up to, but not including, another."""
        return bisect.bisect_left(self.shown, last) - bisect.bisect_left(self.shown, first)


def choose_stream(container: InputContainer) -> VideoStream:
    """The stream that players and ffmpeg show: not cover art, the default stream first, then the largest.

    Raises:
        BadClipError: there is none.
    """
    streams = [stream for stream in container.streams.video if not _is_picture(stream)]
    if not streams:
        raise BadClipError("no video stream")

    def weight(stream: VideoStream) -> tuple[bool, int]:
        context = stream.codec_context
        return bool(stream.disposition & stream.disposition.default), context.width * context.height

    return max(streams, key=weight)  # the first of equal ones


def read_timeline(container: InputContainer, stream: VideoStream) -> Timeline:
    """Read all packets of a newly opened container.

    Raises:
        BadClipError: there are no frames, or the video's clock goes backwards.
    """
    base = stream.time_base or Fraction(1)
    start = container.start_time
    zero_s = ends_s = Fraction(start or 0, av.time_base)
    packets: list[_Packet] = []
    breaks_off = False
    try:
        for packet in container.demux():
            if packet.size and packet.stream_index == stream.index:
                packets.append(_Packet(*(getattr(packet, name) for name in _Packet._fields)))
            if packet.pts is not None and packet.time_base:
                ends_s = max(ends_s, (packet.pts + (packet.duration or 0)) * packet.time_base)
    except av.EOFError:
        pass
    except (av.FFmpegError, OSError, ValueError):
        breaks_off = True  # the packets read so far may contain the clip
    kept = [packet for packet in packets if not packet.is_discard]
    if not kept:
        raise BadClipError("zero length")
    _require_order(kept, base, zero_s)
    formats = set(container.format.name.split(","))
    if "mov" in formats:
        breaks_off |= len(packets) < len(stream.index_entries)
    elif formats & _DECLARE_DURATION and container.duration:
        breaks_off |= zero_s + Fraction(container.duration, av.time_base) - ends_s > END_TOLERANCE_S
    # AVI has no presentation times, and those that FFmpeg derives are wrong with B-frames.
    in_order = "avi" in formats or all(packet.pts is None for packet in kept)
    shown = _decoding_order(kept, stream) if in_order else sorted(p.pts for p in kept if p.pts is not None)
    gaps = sorted(b - a for a, b in itertools.pairwise(shown))
    tail = max((p.pts or 0, p.duration or 0) for p in kept)[1]
    return Timeline(
        base=base,
        zero_s=shown[0] * base if start is None else zero_s,
        shown=shown,
        end=shown[-1] + (tail or (gaps[len(gaps) // 2] if gaps else 0)),
        keys=[] if in_order else sorted(p.pts for p in kept if p.is_keyframe and p.pts is not None),
        in_order=in_order,
        breaks_off=breaks_off,
    )


class _Packet(NamedTuple):
    """A packet's information about its frame."""

    pts: int | None
    dts: int | None
    duration: int | None
    is_keyframe: bool
    is_discard: bool


def _require_order(packets: list[_Packet], base: Fraction, zero_s: Fraction) -> None:
    """Refuse streams whose clock restarts, such as concatenated files."""
    clock = [packet.dts for packet in packets if packet.dts is not None]
    for before, after in itertools.pairwise(clock):
        if after < before:
            at = [float(time * base - zero_s) for time in (before, after)]
            raise BadClipError(f"out of order: after {at[0]:.2f} s the video continues at {at[1]:.2f} s")


def _decoding_order(packets: list[_Packet], stream: VideoStream) -> list[int]:
    """Times of frames with a constant rate: as many as there are packets, in any order."""
    times = [packet.dts for packet in packets if packet.dts is not None]
    if len(times) == len(packets):
        return sorted(times)
    length = packets[0].duration or 0
    if not length and stream.guessed_rate and stream.time_base:
        length = round(1 / (stream.guessed_rate * stream.time_base))
    if not length:
        raise BadClipError("no times: neither the file nor its frames have presentation times")
    return [number * length for number in range(len(packets))]


def _is_picture(stream: VideoStream) -> bool:
    """Whether a stream is cover art or a preview."""
    kinds = stream.disposition
    return bool(stream.disposition & (kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image))

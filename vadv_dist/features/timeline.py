"""When the frames of a video are shown, read from its packets without decoding them.

Containers say this in many ways, or not at all: an index, times that start anywhere, key frames that depend on frames
before them, frames that an edit list hides. The packets of the whole file are the one source that all of them share.
"""

import bisect
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# How far what a container declares, or a list of clips, may differ from what is there: both round to tenths of seconds.
END_TOLERANCE_S = 0.5
# Times are computed as binary fractions.
_ROUNDING_S = Fraction(2, 1_000_000)
# Units of times that are rounded to them (Matroska's milliseconds); longer ones are lengths of frames, and exact.
_LARGEST_UNIT_S = Fraction(1, 1000)
# Containers whose declared duration is that of the file, not a guess from its bit rate.
_DECLARE_DURATION = {"matroska", "webm", "avi", "flv"}


class BadClipError(Exception):
    """A clip that cannot be read; says why in a few words."""


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a video's frames, in units of `base`.

    Attributes:
        base: seconds per unit.
        zero_s: the time that a player shows as 0: the earliest of all streams of the file.
        shown: presentation time of each frame, ascending.
        end: when the last frame ends.
        keys: presentation times of the key frames, ascending.
        in_order: whether frames carry no usable times, so that the n-th decoded frame is shown at `shown[n]`.
        breaks_off: whether the file ends before what it declares, or cannot be read to its end.
    """

    base: Fraction
    zero_s: Fraction
    shown: list[int]
    end: int
    keys: list[int]
    in_order: bool
    breaks_off: bool

    def seconds(self, pts: int) -> float:
        """A presentation time as a player shows it."""
        return float(pts * self.base - self.zero_s)

    def pts_at(self, time_s: float) -> int:
        """Largest presentation time that is not later than a player's time; rounded times count as equal."""
        rounding = min(self.base / 2, _LARGEST_UNIT_S / 2) + _ROUNDING_S
        return int((self.zero_s + Fraction(time_s) + rounding) // self.base)

    def frame_at(self, pts: int) -> int | None:
        """Presentation time of the frame that is shown at a time."""
        place = bisect.bisect_right(self.shown, pts)
        return self.shown[place - 1] if place else None

    def key_before(self, pts: int) -> int | None:
        """The last key frame that is shown by a time: whatever is shown after it can be decoded from it."""
        place = bisect.bisect_right(self.keys, pts)
        return self.keys[place - 1] if place else None

    def frames_between(self, first: int, last: int) -> int:
        """Number of frames that are shown from one time up to, and without, another."""
        return bisect.bisect_left(self.shown, last) - bisect.bisect_left(self.shown, first)


def choose_stream(container: "InputContainer") -> "VideoStream":
    """The stream that players and ffmpeg show: no pictures of a cover, the default one before others, then the largest.

    Raises:
        BadClipError: there is none.
    """
    streams = [stream for stream in container.streams.video if not _is_picture(stream)]
    if not streams:
        raise BadClipError("no video stream")

    def weight(stream: "VideoStream") -> tuple[bool, int]:
        context = stream.codec_context
        return bool(stream.disposition & stream.disposition.default), context.width * context.height

    return max(streams, key=weight)  # the first one of equals


def read_timeline(container: "InputContainer", stream: "VideoStream") -> Timeline:
    """Read all packets of a container that was just opened.

    Raises:
        BadClipError: there is not a single frame, or the video's clock goes back.
    """
    import av

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
        breaks_off = True  # what was read so far may hold the clip
    kept = [packet for packet in packets if not packet.is_discard]
    if not kept:
        raise BadClipError("zero length")
    _require_order(kept, base, zero_s)
    formats = set(container.format.name.split(","))
    if "mov" in formats:
        breaks_off |= len(packets) < len(stream.index_entries)
    elif formats & _DECLARE_DURATION and container.duration:
        breaks_off |= zero_s + Fraction(container.duration, av.time_base) - ends_s > END_TOLERANCE_S
    # AVI knows no presentation times, and those that FFmpeg makes up for it are wrong where there are B-frames.
    in_order = "avi" in formats or all(packet.pts is None for packet in kept)
    shown = _decoding_order(kept, stream) if in_order else sorted(p.pts for p in kept if p.pts is not None)
    gaps = sorted(b - a for a, b in itertools.pairwise(shown))
    tail = max(((p.pts or 0, p.duration or 0) for p in kept), default=(0, 0))[1]
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
    """What a packet says of its frame."""

    pts: int | None
    dts: int | None
    duration: int | None
    is_keyframe: bool
    is_discard: bool


def _require_order(packets: list[_Packet], base: Fraction, zero_s: Fraction) -> None:
    """Refuse streams whose clock starts anew, as that of files that were joined byte by byte."""
    clock = [packet.dts for packet in packets if packet.dts is not None]
    for before, after in itertools.pairwise(clock):
        if after < before:
            at = [float(time * base - zero_s) for time in (before, after)]
            raise BadClipError(f"out of order: after {at[0]:.2f} s the video goes on at {at[1]:.2f} s")


def _decoding_order(packets: list[_Packet], stream: "VideoStream") -> list[int]:
    """Times of frames that are shown at a constant rate: as many as there are packets, in whatever order they come."""
    times = [packet.dts for packet in packets if packet.dts is not None]
    if len(times) == len(packets):
        return sorted(times)
    length = packets[0].duration or 0
    if not length and stream.guessed_rate and stream.time_base:
        length = round(1 / (stream.guessed_rate * stream.time_base))
    if not length:
        raise BadClipError("no times: neither the file nor its frames say when they are shown")
    return [number * length for number in range(len(packets))]


def _is_picture(stream: "VideoStream") -> bool:
    """Whether a stream is the picture on a music file's cover, or a preview of the video."""
    kinds = stream.disposition
    return bool(stream.disposition & (kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image))

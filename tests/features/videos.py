"""Small generated videos of every good and bad kind."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path,
    *,
    frames: int = 25,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 2,
    seed: int = 0,
    seconds_of_sound: float = 0,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    second_size: tuple[int, int] | None = None,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Frame n shows n as a binary number in the brightness of 16 blocks, so that decoded frames can be identified.

    Args:
        size: width and height in pixels.
        gop: distance of key frames.
        times, time_base: presentation times; by default frame n is shown at n / fps.
        options, container: options of the encoder and the muxer.
        pixel_aspect: width of a pixel over its height.
        second_size: size of the second half of the frames, if it changes (MPEG-TS).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    base = time_base or Fraction(1, fps)
    x264 = {"preset": "ultrafast", "crf": "18", "bf": str(b_frames), "sc_threshold": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=fps)
        encoders = []
        for context, (width, height) in ((stream.codec_context, size), (None, second_size or (0, 0))):
            if width:
                context = context or av.CodecContext.create(codec, "w")
                context.width, context.height, context.pix_fmt = width, height, "yuv420p"
                context.gop_size, context.max_b_frames, context.framerate = gop, b_frames, fps
                context.time_base, context.options = base, {**x264, **(options or {})}
                if pixel_aspect is not None:
                    context.sample_aspect_ratio = pixel_aspect
                encoders.append(context)
        sound = file.add_stream("mp2" if codec.startswith("mpeg") else "aac", rate=44100) if seconds_of_sound else None
        packets = []
        for number in range(frames):
            half = number * len(encoders) // frames
            shape = (size, second_size or size)[half]
            image = av.VideoFrame.from_ndarray(numbered(number, shape, seed), format="rgb24")
            image.pts, image.time_base = number if times is None else times[number], base
            packets += encoders[half].encode(image)
            if number == frames - 1 or (number + 1) * len(encoders) // frames > half:
                packets += encoders[half].encode()
        for packet in packets:
            packet.stream = stream
        if sound is not None:
            packets += _silence(sound, seconds_of_sound)
        # Skip the encoder's final packet, which has no time and which muxers do not accept.
        for packet in sorted((p for p in packets if p.dts is not None), key=lambda p: p.dts * p.time_base):
            file.mux(packet)
    return path


def _silence(stream: av.AudioStream, seconds: float) -> list[av.Packet]:
    packets, done = [], 0
    samples = 1152 if stream.codec.name == "mp2" else 1024
    kind, name = (np.int16, "s16") if stream.codec.name == "mp2" else (np.float32, "fltp")
    while done < seconds * stream.rate:
        frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), kind), format=name, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = stream.rate, done, Fraction(1, stream.rate)
        packets += stream.encode(frame)
        done += samples
    return packets + stream.encode()


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix to an MP4: (p, q) is shown at (a p + c q, b p + d q)."""
    content = bytearray(path.read_bytes())
    # ISO/IEC 14496-12, 8.3.2: 40 bytes of the track header (version 0) come before its matrix.
    place = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    content[place : place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def numbered(number: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """An image that shows a number in 16 blocks, dark or bright."""
    width, height = size
    bits = np.array([(number >> bit) & 1 for bit in range(16)], np.uint8).reshape(4, 4)
    blocks = np.kron(bits, np.ones((height // 4, width // 4), np.uint8))
    image = np.zeros((height, width, 3), np.uint8)
    image[: blocks.shape[0], : blocks.shape[1]] = (40 + 160 * blocks)[..., None]
    image[..., 2] = (seed * 37) % 200
    return image


def read_number(image: np.ndarray) -> int:
    """The number shown by an image of `numbered` (from red and green)."""
    height, width = image.shape[0] // 4 * 4, image.shape[1] // 4 * 4
    blocks = image[:height, :width, 1].reshape(4, height // 4, 4, width // 4).mean(axis=(1, 3))
    bits = (blocks > 110).reshape(-1)
    return int(sum(1 << int(bit) for bit in np.flatnonzero(bits)))


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """A file with sound and no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        samples = np.zeros((1, int(16000 * seconds)), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_list(path: Path, rows: Sequence[tuple[str, ...]], header: str) -> Path:
    """A CSV."""
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path

"""Small generated videos, of every good and bad kind."""

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
) -> Path:
    """Frame n shows n in the brightness of 16 blocks (a binary number), so that a decoded frame can be told.

    Args:
        size: width and height in pixels.
        gop: frames from one key frame to the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "18", "bf": str(b_frames), "sc_threshold": "0"}
        stream.time_base = Fraction(1, fps)
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(numbered(number, size, seed), format="rgb24")
            image.pts = number
            image.time_base = Fraction(1, fps)
            container.mux(stream.encode(image))
        container.mux(stream.encode())
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
    """The number that an image of `numbered` shows (red and green tell it)."""
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

"""Detected faces of real people: one of two is followed, and nobody across a cut."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from lists import YUNET

from vadv_dist.config.extract_sections import FacesConfig
from vadv_dist.features.faces import ClipFace, FaceFinder, FaceFrame
from vadv_dist.features.frames import Video, to_image
from vadv_dist.features.listing import ListedClip

pytestmark = pytest.mark.real_data


def images(real_data: Path, name: str, count: int) -> list[np.ndarray]:
    with (real_data / "video_samples" / "grid" / name).open("rb") as file, Video(file) as video:
        return [to_image(picture) for _, picture in video.frames(video.whole.middles(count))]


def face_of(path: Path, shown: list[np.ndarray], detector: Path) -> ClipFace:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.height, stream.width = shown[0].shape[:2]
        for number, image in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with path.open("rb") as file, Video(file) as video:
        span = video.span(None, None)
        times = span.middles(len(shown))
        frames = [FaceFrame(times[i], to_image(p), p.coded_size, p.turn) for i, p in video.frames(times)]
        finder = FaceFinder(FacesConfig(kind="yunet", path=str(detector), min_score=0.7))
        return finder.find(ListedClip("a", "a", "train", 0.0, "w", path.name), video, span, frames)


def test_one_of_two_people_is_followed(real_data: Path, tmp_path: Path) -> None:
    left, right = (images(real_data, name, 12) for name in ("bbaf2n.mpg", "pwij3p.mpg"))
    face = face_of(tmp_path / "a.mp4", [np.hstack(pair) for pair in zip(left, right, strict=True)], real_data / YUNET)
    assert face.boxes is not None
    centres = (np.array(face.boxes)[:, 0] + np.array(face.boxes)[:, 2]) / 2
    assert (centres < 0.5).all() or (centres > 0.5).all()
    assert np.ptp(centres) < 0.05


def test_nobody_is_followed_across_a_cut(real_data: Path, tmp_path: Path) -> None:
    one, other = images(real_data, "bbaf2n.mpg", 10), images(real_data, "pwij3p.mpg", 6)
    face = face_of(tmp_path / "a.mp4", one + other, real_data / YUNET)
    alone = face_of(tmp_path / "b.mp4", one, real_data / YUNET)
    assert face.boxes is not None
    assert alone.boxes is not None
    assert face.seen == 10
    np.testing.assert_allclose(face.boxes[:10], alone.boxes, atol=0.02)
    assert face.boxes[10:] == [face.boxes[9]] * 6
    assert face.crops is not None
    assert all((crop == face.crops[9]).all() for crop in face.crops[10:])

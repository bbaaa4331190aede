"""YuNet's anchors and post-processing checked by hand, and its boxes on real faces and cartoons."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from lists import YUNET

from vadv_dist.errors import UserError
from vadv_dist.features.clip_files import open_clip
from vadv_dist.features.frames import Video, to_image
from vadv_dist.features.yunet import YuNet, decode, priors, suppress


def largest(boxes: np.ndarray) -> np.ndarray:
    """The largest box; NaN if there is none."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return boxes[areas.argmax()] if len(boxes) else np.full(4, np.nan)


def test_anchors_match_the_published_loops() -> None:
    """The zoo's nested loops, in fractions of the image."""
    width, height = 192, 128
    second = [int(int((size + 1) / 2) / 2) for size in (height, width)]
    maps = []
    for _ in range(4):
        second = [size // 2 for size in second]
        maps.append(second)
    expected = []
    for sides, step, (rows, columns) in zip(
        [[10, 16, 24], [32, 48], [64, 96], [128, 192, 256]], [8, 16, 32, 64], maps, strict=True
    ):
        for i, j in itertools.product(range(rows), range(columns)):
            for side in sides:
                expected.append([(j + 0.5) * step / width, (i + 0.5) * step / height, side / width, side / height])
    shares = priors(height, width) / np.array([width, height, width, height])
    np.testing.assert_allclose(shares, np.array(expected), atol=1e-6)


def test_offsets_become_boxes_and_scores() -> None:
    anchors = priors(64, 64)
    loc = np.zeros((len(anchors), 14), np.float32)
    conf = np.tile(np.array([[0.19, 0.81]], np.float32), (len(anchors), 1))
    iou = np.full((len(anchors), 1), 1.21, np.float32)
    loc[0, :4] = 1.0, -1.0, 1.0, 1.0
    boxes, scores = decode(loc, conf, iou, 64, 64)
    # The first anchor: centre (4, 4), side 10; the centre moves by a tenth of the side.
    wide, high = 10 * np.exp(0.1), 10 * np.exp(0.2)
    np.testing.assert_allclose(boxes[0], [5 - wide / 2, 3 - high / 2, 5 + wide / 2, 3 + high / 2], rtol=1e-5)
    np.testing.assert_allclose(scores[0], 0.9, rtol=1e-6)


def test_the_best_of_overlapping_boxes_remains() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [5, 0, 15, 10]], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    assert suppress(boxes, scores, 0.3).tolist() == [1, 2]
    assert suppress(boxes, scores, 0.9).tolist() == [1, 0, 2, 3]
    assert suppress(boxes[:0], scores[:0], 0.3).tolist() == []


def test_a_file_that_is_not_a_detector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist. Set faces.path"):
        YuNet(tmp_path / "no.onnx", min_score=0.5, longest_side=320)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(UserError, match="is not an ONNX model"):
        YuNet(tmp_path / "bad.onnx", min_score=0.5, longest_side=320)


@pytest.mark.real_data
def test_faces_are_found_in_every_frame_with_a_face_and_rarely_in_a_cartoon(real_data: Path) -> None:
    detector = YuNet(real_data / YUNET, min_score=0.8, longest_side=320)

    def detect(name: str) -> list[np.ndarray]:
        with open_clip(str(real_data / "video_samples" / "pyfeat" / name)) as file, Video(file) as video:
            times = video.span(None, None).middles(16)
            return [largest(detector.detect(to_image(frame))) for _, frame in video.frames(times)]

    boxes = np.stack(detect("single_face.mp4"))
    assert not np.isnan(boxes).any()
    # The face fills the centre of a 640 × 360 picture and hardly moves.
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (np.abs(centres - np.median(centres, axis=0)) < 40).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [640, 360]).all()
    sizes = boxes[:, 2:] - boxes[:, :2]
    assert ((sizes > 100) & (sizes < 280)).all()
    assert sum(not np.isnan(box).any() for box in detect("no_face.mp4")) <= 1


@pytest.mark.real_data
def test_a_smaller_picture_has_the_face_in_the_same_place(real_data: Path) -> None:
    from PIL import Image

    with open_clip(str(real_data / "video_samples" / "pyfeat" / "single_face.mp4")) as file, Video(file) as video:
        [(_, frame)] = list(video.frames([1.0]))
        image = to_image(frame)
    detector = YuNet(real_data / YUNET, min_score=0.8, longest_side=320)
    whole = largest(detector.detect(image))
    half = np.asarray(Image.fromarray(image).resize((320, 180), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(largest(detector.detect(half)) * 2, whole, atol=8)

"""One face through a clip: gaps, smoothing, squares and crops, by hand."""

import numpy as np

from vadv_dist.features.tracks import crop, follow, largest, squares


def boxes(*lefts: float | None) -> np.ndarray:
    return np.array([[np.nan] * 4 if x is None else [x, 0, x + 10, 20] for x in lefts])


def test_the_largest_face_is_taken() -> None:
    found = np.array([[0, 0, 5, 5], [10, 10, 30, 20], [0, 0, 3, 40]], np.float32)
    assert largest(found).tolist() == [10, 10, 30, 20]
    assert np.isnan(largest(found[:0])).all()


def test_gaps_are_filled_on_straight_lines_and_ends_are_held() -> None:
    track = follow(boxes(None, 4, None, None, 10, None), min_share=0.3, smoothing=0)
    assert track is not None
    assert track[:, 0].tolist() == [4, 4, 6, 8, 10, 10]
    assert track[:, 2].tolist() == [14, 14, 16, 18, 20, 20]


def test_too_few_faces_are_none() -> None:
    assert follow(boxes(None, 4, None, None, None), min_share=0.25, smoothing=0) is None
    assert follow(boxes(None, None), min_share=0.0, smoothing=0) is None
    assert follow(boxes(1, None, None, None), min_share=0.25, smoothing=0) is not None


def test_smoothing_is_a_gaussian_mean_that_keeps_a_still_face_still() -> None:
    still = follow(boxes(3, 3, 3, 3), min_share=0, smoothing=1.5)
    np.testing.assert_allclose(still[:, 0], 3)
    jump = follow(boxes(0, 0, 9), min_share=0, smoothing=1.0)
    weights = np.exp(-0.5 * np.array([2.0, 1.0, 0.0]) ** 2)
    np.testing.assert_allclose(jump[2, 0], 9 * weights[2] / weights.sum())


def test_squares_have_the_larger_side_and_its_margin() -> None:
    assert squares(np.array([[10.0, 20.0, 30.0, 60.0]]), 0.25).tolist() == [[-10, 10, 60]]


def test_a_crop_is_black_outside_the_image() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) + 1
    cut = crop(image, (-1, 2, 4))
    assert cut.shape == (4, 4, 3)
    np.testing.assert_array_equal(cut[:2, 1:], image[2:, :3])
    assert not cut[:, 0].any()
    assert not cut[2:].any()
    assert not crop(image, (50, 50, 3)).any()

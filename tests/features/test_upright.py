"""Orientation, pixel aspect and size of displayed frames, checked by hand and with files."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from videos import numbered, read_number, set_display_matrix, write_video

from vadv_dist.features.frames import BadClipError, Video, to_image
from vadv_dist.features.upright import turn_of

MATRICES = [(a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)]
MATRICES += [(0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)]


def laid(image: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """libavutil/display.h, pixel by pixel: (p, q) goes to (a p + c q, b p + d q)."""
    height, width = image.shape[:2]
    places = {(p, q): (a * p + c * q, b * p + d * q) for p in range(width) for q in range(height)}
    left, top = (min(place[axis] for place in places.values()) for axis in (0, 1))
    shown = np.zeros((height, width, 3) if a else (width, height, 3), image.dtype)
    for (p, q), (x, y) in places.items():
        shown[y - top, x - left] = image[q, p]
    return shown


def matrix(a: int, b: int, c: int, d: int, scale: int = 1 << 16) -> np.ndarray:
    return np.array([a * scale, b * scale, 0, c * scale, d * scale, 0, 7 << 16, 9 << 16, 1 << 30], np.int32)


@pytest.mark.parametrize("entries", MATRICES)
def test_all_eight_orientations_match_the_display_matrix(entries: tuple[int, int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 7, 3), np.uint8)
    turn = turn_of(matrix(*entries))
    np.testing.assert_array_equal(turn.image(image), laid(image, *entries))
    assert bool(turn) == (entries != (1, 0, 0, 1))
    # A box moves with its pixels.
    marked = np.zeros((4, 7, 3), np.uint8)
    marked[1:3, 2:6] = 1
    rows, columns = np.nonzero(turn.image(marked)[..., 0])
    height, width = turn.image(marked).shape[:2]
    expected = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
    np.testing.assert_allclose(turn.boxes(np.array([2 / 7, 1 / 4, 6 / 7, 3 / 4])), expected)


def test_an_empty_matrix_and_the_scale_of_a_matrix_are_ignored() -> None:
    assert not turn_of(np.zeros(9, np.int32))
    assert turn_of(matrix(0, 1, -1, 0, scale=1000)) == turn_of(matrix(0, 1, -1, 0))


def test_other_angles_are_refused() -> None:
    with pytest.raises(BadClipError, match=r"odd angle: .* other than quarter turns"):
        turn_of(matrix(1, 1, -1, 1))


@pytest.mark.parametrize("entries", MATRICES)
def test_a_video_is_read_as_displayed_by_a_player(tmp_path: Path, entries: tuple[int, int, int, int]) -> None:
    path = set_display_matrix(write_video(tmp_path / "phone.mp4", frames=3, size=(64, 48)), *entries)
    with path.open("rb") as file, Video(file) as video:
        assert video.size == ((64, 48) if entries[0] else (48, 64))
        [(_, picture)] = video.frames([0.05])
        whole, small = to_image(picture), to_image(picture, 32)
    expected = laid(numbered(1, (64, 48)), *entries)
    assert whole.shape == expected.shape
    assert np.abs(whole.astype(int) - expected).mean() < 12  # coding error; with another orientation above 30
    assert small.shape == (expected.shape[0] // 2, expected.shape[1] // 2, 3)


@pytest.mark.parametrize(("aspect", "size"), [((2, 1), (128, 48)), ((1, 2), (32, 48)), ((16, 15), (68, 48))])
def test_non_square_pixels_are_stretched(tmp_path: Path, aspect: tuple[int, int], size: tuple[int, int]) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, size=(64, 48), pixel_aspect=Fraction(*aspect))
    with path.open("rb") as file, Video(file) as video:
        [(_, picture)] = video.frames([0.05])
        assert video.size == size
        assert to_image(picture).shape == (size[1], size[0], 3)
        assert read_number(to_image(picture)) == 1
    set_display_matrix(path, 0, 1, -1, 0)
    with path.open("rb") as file, Video(file) as video:
        assert video.size == size[::-1]


def test_absurd_pixels_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, pixel_aspect=Fraction(8))
    with path.open("rb") as file, Video(file) as video, pytest.raises(BadClipError, match="odd pixels"):
        video.span(None, None)


def test_a_size_that_changes_within_a_file_applies_per_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", frames=24, size=(64, 48), second_size=(96, 128))
    with path.open("rb") as file, Video(file) as video:
        pictures = [picture for _, picture in video.frames([0.1, 0.8])]
        assert [to_image(picture).shape for picture in pictures] == [(48, 64, 3), (128, 96, 3)]
        assert [read_number(to_image(picture)) for picture in pictures] == [2, 20]

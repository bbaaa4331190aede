"""Following one person: gaps, smoothing, choice of the person, cuts; squares and crops, checked by hand."""

import numpy as np
import pytest

from vadv_dist.features.tracks import Scenes, Track, choose_person, crop, follow, square

NOBODY = np.zeros((0, 4))


def boxes(*lefts: float | None) -> list[np.ndarray]:
    return [NOBODY if x is None else np.array([[x, 0, x + 10, 20]]) for x in lefts]


def one_scene(a: int, b: int) -> bool:
    return True


def followed(faces: list[np.ndarray], scenes: Scenes | None = None, *, smoothing: float = 0) -> Track:
    same = one_scene if scenes is None else scenes.same
    track = follow(faces, choose_person(faces, same), same, min_share=0.2, smoothing=smoothing)
    assert track is not None
    return track


def test_gaps_are_interpolated_and_the_ends_use_the_nearest_frame() -> None:
    track = followed(boxes(None, 4, None, None, 10, None))
    assert track.boxes[:, 0].tolist() == [4, 4, 6, 8, 10, 10]
    assert track.boxes[:, 2].tolist() == [14, 14, 16, 18, 20, 20]
    assert track.sources == [1, 1, 2, 3, 4, 4]
    assert track.seen == {1: 0, 4: 0}


def test_too_few_faces_give_no_track() -> None:
    def has_face(*lefts: float | None, min_share: float) -> bool:
        faces = boxes(*lefts)
        seen = choose_person(faces, one_scene)
        return follow(faces, seen, one_scene, min_share=min_share, smoothing=0) is not None

    assert not has_face(None, 4, None, None, None, min_share=0.25)
    assert not has_face(None, None, min_share=0)
    assert has_face(1, None, None, None, min_share=0.25)


def test_smoothing_is_a_gaussian_mean_that_preserves_a_still_face() -> None:
    np.testing.assert_allclose(followed(boxes(3, 3, 3, 3), smoothing=1.5).boxes[:, 0], 3)
    weights = np.exp(-0.5 * np.array([2.0, 1.0, 0.0]) ** 2)
    jump = followed(boxes(0, 0, 9), smoothing=1.0)
    np.testing.assert_allclose(jump.boxes[2, 0], 9 * weights[2] / weights.sum())


def two(left: float, right: float, sides: tuple[float, float] = (40, 40)) -> np.ndarray:
    return np.array([[left, 10, left + sides[0], 10 + sides[0]], [right, 10, right + sides[1], 10 + sides[1]]])


@pytest.mark.parametrize("order", ["as they are", "by turns", "the larger first"])
def test_one_of_two_people_is_followed_whatever_their_size_or_order(order: str) -> None:
    faces = []
    for frame in range(16):
        pair = two(5 + frame % 3, 110 - frame % 2, (40, 41) if frame % 2 else (41, 40))
        if order != "as they are" and frame % 2:
            pair = pair[::-1]
        faces.append(pair)
    lefts = followed(faces, smoothing=1.5).boxes[:, 0]
    assert (np.abs(lefts - 6) < 2).all() or (np.abs(lefts - 109) < 2).all()


def test_the_person_seen_longer_is_followed_even_if_another_is_briefly_larger() -> None:
    faces = [two(5, 110)[:1] for _ in range(10)]
    faces[3] = two(5, 90, (40, 70))
    assert followed(faces).boxes[:, 0].tolist() == [5.0] * 10


def test_another_person_does_not_fill_gaps() -> None:
    faces = [two(5, 110), two(5, 110), two(5, 110)[1:], two(5, 110)[1:], two(5, 110)] * 2
    np.testing.assert_allclose(followed(faces, smoothing=1.5).boxes[:, 0], 110)
    by_turns = [two(5, 110)[frame % 2 :][:1] for frame in range(10)]
    assert len(set(followed(by_turns).boxes[:, 0].tolist())) == 1


def test_crossing_people_are_not_confused() -> None:
    faces = [np.array([[x, 0, x + 40, 40], [200 - x, 60, 240 - x, 100]]) for x in range(0, 201, 20)]
    track = followed([pair[:: (-1) ** n] for n, pair in enumerate(faces)])
    assert len(set(track.boxes[:, 1].tolist())) == 1


def pictures(*scenes: str) -> Scenes:
    """Frames of scenes, each with some noise."""
    chance = np.random.default_rng(0)
    rooms = {name: chance.integers(0, 255, (6, 8, 3)) for name in sorted(set(scenes))}
    large = [np.kron(rooms[name], np.ones((8, 8, 1))) for name in scenes]
    return Scenes([np.clip(room + chance.normal(0, 4, room.shape), 0, 255).astype(np.uint8) for room in large])


def test_nobody_is_followed_across_a_cut() -> None:
    scenes = pictures(*"AAAAAAAABBBB")
    assert scenes.same(0, 7)
    assert not scenes.same(7, 8)
    # Another person, almost in the same place.
    track = followed(boxes(*[0] * 8, *[4] * 4), scenes, smoothing=1.5)
    np.testing.assert_allclose(track.boxes[:, 0], 0)
    assert track.sources == [*range(8), 7, 7, 7, 7]


def test_a_person_is_found_again_when_the_scene_returns() -> None:
    track = followed(boxes(0, 0, 0, 4, 4, 0, 0, 0), pictures(*"AAABBAAA"))
    assert track.boxes[:, 0].tolist() == [0] * 8
    assert track.sources == [0, 1, 2, 2, 5, 5, 6, 7]
    assert sorted(track.seen) == [0, 1, 2, 5, 6, 7]


def test_a_moving_camera_causes_no_cuts() -> None:
    wall = np.kron(np.random.default_rng(1).integers(0, 255, (6, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    scenes = Scenes([wall[:, 6 * n : 6 * n + 64] for n in range(20)])
    assert all(scenes.same(n, n + 1) for n in range(19))


def test_a_square_has_the_larger_side_plus_margin() -> None:
    assert square(np.array([10.0, 20.0, 30.0, 60.0]), 0.25) == (-10, 10, 60)


def test_a_crop_is_black_outside_the_image() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) + 1
    cut = crop(image, (-1, 2, 4))
    assert cut.shape == (4, 4, 3)
    np.testing.assert_array_equal(cut[:2, 1:], image[2:, :3])
    assert not cut[:, 0].any()
    assert not cut[2:].any()
    assert not crop(image, (50, 50, 3)).any()

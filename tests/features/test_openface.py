"""OpenFace's landmarks and aligned crops are matched to the right clips and frames."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lists import HEADER, quiet
from PIL import Image
from videos import set_display_matrix, write_list, write_video

from vadv_dist.config.extract_sections import ClipsConfig, FacesConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader
from vadv_dist.errors import UserError
from vadv_dist.features.extract import extract
from vadv_dist.features.faces import ClipFace, FaceFinder, FaceFrame
from vadv_dist.features.frames import Video, to_image
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.openface import Output, find_output, read_crop, read_faces
from vadv_dist.features.timeline import BadClipError

COLUMNS = "frame, face_id, timestamp, confidence, success, x_0, x_1, y_0, y_1"


def write_csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([COLUMNS, *rows]))
    return path


def moving(frames: int, *, fps: float = 25, first: int = 0, step: float = 1, face: int = 0) -> list[str]:
    """Rows of one face whose left edge encodes the frame: 2 + step × number from `first`."""
    return [
        f"{n + 1}, {face}, {n / fps:.3f}, 0.98, 1, {2 + step * n}, {12 + step * n}, 10, 30"
        for n in range(first, frames)
    ]


def face_of(
    video: Path,
    made: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    name: str = "talk_1",
    **faces: float,
) -> tuple[ClipFace, list[float]]:
    """The face of clip `talk_1` in eight frames, and their positions in the video in frames of 1/25 s."""
    config = FacesConfig(kind="openface", path=str(made), **{"smoothing": 0, "margin": 0, **faces})
    clip = ListedClip("talk_1", "talk", "train", 0.0, "w", "talk.mp4", start, end, names=("talk_1", "talk"))
    with video.open("rb") as file, Video(file) as opened:
        span = opened.span(start, end)
        times = span.middles(8)
        frames = [
            FaceFrame(times[i], to_image(picture), picture.coded_size, picture.turn)
            for i, picture in opened.frames(times)
        ]
        return FaceFinder(config).find(clip, opened, span, frames), [25 * time for time in times]


def lefts(face: ClipFace, width: int = 160) -> list[int]:
    assert face.boxes is not None
    return [round(box[0] * width) for box in face.boxes]


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Four seconds."""
    return write_video(tmp_path / "talk.mp4", frames=100, size=(160, 96), gop=50)


def test_faces_with_low_confidence_are_ignored(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "a.csv",
        "1, 0, 0.00, 0.98, 1, 10, 20, 30, 50",
        "1, 1, 0.00, 0.98, 1, 0, 5, 0, 5",
        "2, 0, 0.04, 0.50, 1, 11, 21, 31, 51",
        "3, 0, 0.08, 0.98, 0, 12, 22, 32, 52",
        "4, 0, 0.12, 0.98, 1, 23, 13, 33, 53",
        "5, 0, 0.16, nan, 1, 23, 13, 33, 53",
        "6, 0, 0.20, 0.98, 1, inf, 13, 33, 53",
    )
    faces = read_faces(Output("a", None, file), min_score=0.8)
    assert faces is not None
    assert faces.coverage.numbers == [1, 2, 3, 4, 5, 6]
    assert [boxes.tolist() for boxes in faces.boxes] == [
        [[10, 30, 20, 50], [0, 0, 5, 5]], [], [], [[13, 33, 23, 53]], [], []
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("frame, timestamp\n1, 0\n", "has no columns timestamp, x_0"),
        (COLUMNS + "\n1, 0, zero, 1, 1, 1, 2, 3, 4", "is unreadable"),
        (COLUMNS + "\n1, 0, 0, 1, 1, 1", "is truncated"),
        (COLUMNS, "has no rows"),
        (COLUMNS + "\n1, 0, 0.04, 1, 1, 1, 2, 3, 4\n2, 0, 0.0, 1, 1, 1, 2, 3, 4", "times that do not increase"),
        (COLUMNS + "\n1, 0, nan, 1, 1, 1, 2, 3, 4", "frames without times"),
    ],
)
def test_an_invalid_csv_rejects_the_clip(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(BadClipError, match=message):
        read_faces(Output("a", None, tmp_path / "a.csv"), min_score=0.8)


def test_output_is_found_under_the_clips_names(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    file = write_csv(tmp_path / "q" / "1.csv")
    assert find_output(tmp_path, ("q_1", "Raw/q/1", "q/1")) == Output("q/1", None, file)
    assert find_output(tmp_path, ("p_1", "Raw/p/1", "p/1")) is None
    (tmp_path / "a" / "a_aligned").mkdir(parents=True)
    assert find_output(tmp_path, ("a",)) == Output("a", tmp_path / "a" / "a_aligned", None)


def test_frames_are_matched_by_their_numbers(talk: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "talk_1.csv", *moving(100))
    face, at = face_of(talk, tmp_path)
    assert lefts(face) == [2 + int(frame) for frame in at]
    assert face.seen == 8


def test_frames_of_varying_length_are_matched_by_their_numbers_not_by_openfaces_times(tmp_path: Path) -> None:
    times = [20 * n if n < 50 else 1000 + 60 * (n - 50) for n in range(100)]
    talk = write_video(tmp_path / "talk.mp4", frames=100, size=(160, 96), times=times, time_base=Fraction(1, 1000))
    write_csv(tmp_path / "talk_1.csv", *moving(100, fps=25))  # mean rate: 100 frames in 4 s
    face, at = face_of(talk, tmp_path)
    assert lefts(face) == [2 + max(n for n in range(100) if times[n] <= 40 * frame) for frame in at]


def test_a_file_with_another_rate_is_matched_by_its_times(talk: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "talk_1.csv", *moving(40, fps=10, step=3))
    face, at = face_of(talk, tmp_path)
    assert np.abs(np.array(lefts(face)) - [2 + 3 * frame / 2.5 for frame in at]).max() <= 2


@pytest.mark.parametrize(("rows", "first_frame"), [(moving(50), 50), (moving(100), 0)])
def test_the_length_of_a_file_named_after_a_clip_tells_clip_from_video(
    talk: Path, tmp_path: Path, rows: list[str], first_frame: int
) -> None:
    write_csv(tmp_path / "talk_1.csv", *rows)
    face, at = face_of(talk, tmp_path, start=2.0, end=4.0)
    assert lefts(face) == [2 + int(frame) - first_frame for frame in at]


def test_a_file_named_after_the_video_belongs_to_the_video(talk: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "talk.csv", *moving(100))
    face, at = face_of(talk, tmp_path, start=2.0, end=4.0)
    assert lefts(face) == [2 + int(frame) for frame in at]
    write_csv(tmp_path / "talk.csv", *moving(50))
    with pytest.raises(BadClipError, match=r"talk\.csv covers frames up to number 50 and 2\.00 s"):
        face_of(talk, tmp_path, start=2.0, end=4.0)


@pytest.mark.parametrize("frames", [30, 70, 150])
@pytest.mark.parametrize("part", [(None, None), (2.0, 4.0)])
def test_a_file_with_another_length_is_refused(
    talk: Path, tmp_path: Path, frames: int, part: tuple[float | None, float | None]
) -> None:
    write_csv(tmp_path / "talk_1.csv", *moving(frames, step=0.5))
    with pytest.raises(BadClipError, match=r"wrong OpenFace output: .* its video 100 in 4\.00 s"):
        face_of(talk, tmp_path, start=part[0], end=part[1])


def test_frames_without_rows_have_no_face(talk: Path, tmp_path: Path) -> None:
    # With several faces, OpenFace writes rows only for frames with a face.
    write_csv(tmp_path / "talk_1.csv", *moving(60, first=30), *moving(90, first=80))
    face, at = face_of(talk, tmp_path)
    assert [at[n] for n in (2, 3, 4, 6)] == [31.25, 43.75, 56.25, 81.25]
    assert face.seen == 3  # the last one is too far away to be matched to the same person
    assert lefts(face) == [33, 33, 33, 45, 58, 58, 58, 58]
    write_csv(tmp_path / "talk_1.csv", *moving(25, first=10))
    with pytest.raises(BadClipError, match="wrong OpenFace output"):  # ambiguous: clip or video
        face_of(talk, tmp_path, start=2.0, end=4.0)


def test_one_of_two_people_is_followed_whatever_their_ids(talk: Path, tmp_path: Path) -> None:
    rows = []
    for n in range(100):
        pair = [(5 + n % 3, 45), (110, 150 + n % 2)]
        for face, (left, right) in enumerate(pair if n % 2 else pair[::-1]):
            rows.append(f"{n + 1}, {face}, {n / 25}, 0.98, 1, {left}, {right}, 10, 50")
    write_csv(tmp_path / "talk_1.csv", *rows)
    found = lefts(face_of(talk, tmp_path, smoothing=1.5)[0])
    assert all(abs(left - 6) < 3 for left in found) or all(abs(left - 110) < 3 for left in found)


def test_landmarks_outside_the_picture_are_refused(talk: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "talk_1.csv", *(f"{n + 1}, 0, {n / 25}, 0.98, 1, 500, 600, 300, 400" for n in range(100)))
    with pytest.raises(BadClipError, match=r"talk_1\.csv are outside the picture of 160 × 96 pixels"):
        face_of(talk, tmp_path)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ("60, 90, 120, 150", [60 / 96, 120 / 160, 90 / 96, 150 / 160]),  # below the coded picture: rotated
        (
            "100, 140, 20, 40",
            [1 - 40 / 96, 100 / 160, 1 - 20 / 96, 140 / 160],
        ),  # right of the rotated picture: as coded
    ],
)
def test_landmarks_of_a_phone_video_are_mapped_to_the_orientation_they_fit(
    talk: Path, tmp_path: Path, box: str, expected: list[float]
) -> None:
    set_display_matrix(talk, 0, 1, -1, 0)
    write_csv(tmp_path / "talk_1.csv", *(f"{n + 1}, 0, {n / 25}, 0.98, 1, {box}" for n in range(100)))
    face, _ = face_of(talk, tmp_path)
    assert face.boxes is not None
    np.testing.assert_allclose(face.boxes, [expected] * 8, atol=1e-3)


def test_landmarks_that_fit_both_orientations_are_refused(talk: Path, tmp_path: Path) -> None:
    set_display_matrix(talk, 0, 1, -1, 0)
    write_csv(tmp_path / "talk_1.csv", *(f"{n + 1}, 0, {n / 25}, 0.98, 1, 20, 40, 20, 40" for n in range(100)))
    with pytest.raises(BadClipError, match=r"talk_1\.csv does not tell whether OpenFace rotated it"):
        face_of(talk, tmp_path)


def write_crops(folder: Path, numbers: range | list[int], face: int = 0, brightness: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        image = np.full((4, 4, 3), brightness + number, np.uint8)
        Image.fromarray(image).save(folder / f"frame_det_{face:02d}_{number:06d}.bmp")


def shown(face: ClipFace) -> list[int]:
    assert face.crops is not None
    return [int(crop[0, 0, 0]) for crop in face.crops]


def test_crops_match_the_frames_at_their_times(talk: Path, tmp_path: Path) -> None:
    write_crops(tmp_path / "talk_aligned", range(1, 101))
    face, at = face_of(talk, tmp_path)
    assert shown(face) == [1 + int(frame) for frame in at]
    face, at = face_of(talk, tmp_path, start=2.0, end=4.0)
    assert shown(face) == [1 + int(frame) for frame in at]
    assert face.boxes is None
    (tmp_path / "talk_aligned" / "frame_det_00_000054.bmp").write_bytes(b"no picture")
    with pytest.raises(BadClipError, match="frame_det_00_000054"):
        face_of(talk, tmp_path, start=2.0, end=4.0)


def test_frames_without_a_crop_use_the_nearest_one(talk: Path, tmp_path: Path) -> None:
    write_crops(tmp_path / "talk_1_aligned", range(51, 101))
    face, at = face_of(talk, tmp_path)
    assert shown(face) == [57, 57, 57, 57, *(1 + int(frame) for frame in at[4:])]
    assert face.seen == 4
    write_crops(tmp_path / "talk_1_aligned", range(101, 140))
    with pytest.raises(BadClipError, match=r"wrong OpenFace output: talk_1 covers frames up to number 139"):
        face_of(talk, tmp_path)
    (tmp_path / "empty" / "talk_1_aligned").mkdir(parents=True)
    assert face_of(talk, tmp_path / "empty")[0] == ClipFace(missing="no face found")


def test_crops_of_two_people_are_reduced_to_one(talk: Path, tmp_path: Path) -> None:
    # Without landmarks, the most frequent face id is used.
    write_crops(tmp_path / "talk_1_aligned", range(1, 31), face=0, brightness=0)
    write_crops(tmp_path / "talk_1_aligned", range(1, 101), face=1, brightness=100)
    assert min(shown(face_of(talk, tmp_path)[0])) > 100
    # With landmarks, positions are used: the ids swap in the middle.
    write_crops(tmp_path / "talk_1_aligned", range(1, 101), face=0, brightness=0)
    rows = []
    for n in range(100):
        left, right = (5, 110) if n < 50 else (110, 5)
        rows += [f"{n + 1}, {i}, {n / 25}, 0.98, 1, {x}, {x + 40}, 10, 50" for i, x in enumerate((left, right))]
    write_csv(tmp_path / "talk_1.csv", *rows)
    person = [number > 100 for number in shown(face_of(talk, tmp_path)[0])]
    assert person in ([False] * 4 + [True] * 4, [True] * 4 + [False] * 4)


def test_a_damaged_crop_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"no picture")
    with pytest.raises(BadClipError, match=r"OpenFace's a\.bmp is unreadable"):
        read_crop(tmp_path / "a.bmp")


def test_an_extraction_uses_faces_from_openface(configure, classifier_folder: Path, tmp_path: Path) -> None:
    rows = [(f"{name}_0", name, "train", "0", "words", f"{name}.mp4") for name in ("boxes", "crops", "none")]
    for name in ("boxes", "crops", "none"):
        write_video(tmp_path / "clips" / f"{name}.mp4", frames=25)
    csv = write_list(tmp_path / "clips" / "clips.csv", rows, HEADER)
    made = tmp_path / "openface"
    write_crops(made / "crops_aligned", range(1, 26))
    write_csv(made / "boxes.csv", *(f"{i + 1}, 0, {i / 25}, 0.98, 1, 16, 48, 8, 40" for i in range(25)))
    faces = FacesConfig(kind="openface", path=str(made))
    summary = extract(configure(csv, expression=classifier_folder, faces=faces), quiet())
    assert summary.without_face == 1
    assert "null in 1 clips without a face (1 no OpenFace output)" in str(summary)
    dataset = Dataset.open(tmp_path / "out")
    table = ShardReader(dataset, ("face",)).read(dataset.manifest.splits["train"][0])
    assert table.column("face").is_null().to_pylist() == [False, False, True]
    sources = pq.read_table(tmp_path / "out" / "sources.parquet").to_pylist()
    np.testing.assert_allclose(sources[0]["boxes"], [[16 / 64, 8 / 48, 48 / 64, 40 / 48]] * 8, atol=1e-4)
    assert sources[1]["boxes"] is None
    assert [row["faces"] for row in sources] == [8, 8, 0]
    assert [row["no_face"] for row in sources] == [None, None, "no OpenFace output"]


def test_a_file_that_fits_several_videos_is_not_used(configure, classifier_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    for name in ("p", "q"):
        write_video(folder / "Raw" / name / "1.mp4", frames=25)
    write_list(
        folder / "label.csv",
        [("p", "1", "good", "1", "train"), ("q", "1", "bad", "-1", "train")],
        "video_id,clip_id,text,label,mode",
    )
    made = tmp_path / "openface"
    made.mkdir()
    write_csv(made / "1.csv", *moving(25))
    (made / "p").mkdir()
    write_csv(made / "p" / "1.csv", *moving(25))
    config = configure(
        folder / "label.csv", expression=classifier_folder, faces=FacesConfig(kind="openface", path=str(made))
    )
    config = type(config)(**{**vars(config), "clips": ClipsConfig(mmsa=str(folder))})
    assert extract(config, quiet()).no_face == {"OpenFace output under a name that several videos share": 1}
    sources = pq.read_table(tmp_path / "out" / "sources.parquet").to_pylist()
    assert [(row["clip_id"], row["no_face"] is None) for row in sources] == [("p_1", True), ("q_1", False)]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Set faces\.path to OpenFace's output folder"):
        FaceFinder(FacesConfig(kind="openface", path=str(tmp_path / "no")))

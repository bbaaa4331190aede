"""What OpenFace wrote: its CSV of landmarks and its folder of aligned crops."""

from pathlib import Path

import numpy as np
import pytest
from lists import HEADER, quiet
from PIL import Image
from videos import write_list, write_video

from vadv_dist.config.extract_sections import FacesConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.data.reading import ShardReader
from vadv_dist.errors import UserError
from vadv_dist.features.extract import extract
from vadv_dist.features.frames import BadClipError
from vadv_dist.features.openface import find_output, read_boxes, read_crops, require_folder

COLUMNS = "frame, face_id, timestamp, confidence, success, x_0, x_1, y_0, y_1"


def write_csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([COLUMNS, *rows]))
    return path


def test_boxes_surround_the_landmarks_of_the_largest_face_at_the_nearest_time(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "a.csv",
        "1, 0, 0.00, 0.98, 1, 10, 20, 30, 50",
        "1, 1, 0.00, 0.98, 1, 0, 5, 0, 5",
        "2, 0, 0.04, 0.50, 1, 11, 21, 31, 51",
        "3, 0, 0.08, 0.98, 0, 12, 22, 32, 52",
        "4, 0, 0.12, 0.98, 1, 23, 13, 33, 53",
    )
    boxes = read_boxes(file, [0.01, 0.05, 0.08, 0.2], min_score=0.8)
    assert boxes[0].tolist() == [10, 30, 20, 50]
    assert np.isnan(boxes[1:3]).all()  # too unsure, and no success
    assert boxes[3].tolist() == [13, 33, 23, 53]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("frame, timestamp\n1, 0\n", "has no columns timestamp, x_0"),
        (COLUMNS + "\n1, 0, zero, 1, 1, 1, 2, 3, 4", "is unreadable"),
        (COLUMNS + "\n1, 0, 0, 1, 1, 1", "is cut off"),
    ],
)
def test_a_csv_of_another_kind_is_the_clips_fault(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(BadClipError, match=message):
        read_boxes(tmp_path / "a.csv", [0.0], min_score=0.8)


def test_crops_are_those_of_evenly_spaced_frames_and_gaps_take_the_nearest(tmp_path: Path) -> None:
    folder = tmp_path / "a_aligned"
    folder.mkdir()
    for number in (1, 2, 3, 8):
        image = np.full((4, 4, 3), number * 10, np.uint8)
        Image.fromarray(image).save(folder / f"frame_det_00_{number:06d}.bmp")
    assert [int(image[0, 0, 0]) for image in read_crops(folder, 4)] == [10, 30, 30, 80]
    assert [int(image[0, 0, 0]) for image in read_crops(folder, 1)] == [30]
    (folder / "frame_det_00_000008.bmp").write_bytes(b"no picture")
    with pytest.raises(BadClipError, match="frame_det_00_000008"):
        read_crops(folder, 4)
    assert find_output(tmp_path, "a", "Raw/x/1.mp4") == folder
    assert find_output(tmp_path, "b", "Raw/x/a.mp4") == folder
    assert find_output(tmp_path, "b", "Raw/x/1.mp4") is None


def test_a_clip_takes_its_faces_from_what_openface_wrote(configure, classifier_folder: Path, tmp_path: Path) -> None:
    rows = [(f"{name}_0", name, "train", "0", "words", f"{name}.mp4") for name in ("boxes", "crops", "none")]
    for name in ("boxes", "crops", "none"):
        write_video(tmp_path / "clips" / f"{name}.mp4", frames=25)
    csv = write_list(tmp_path / "clips" / "clips.csv", rows, HEADER)
    made = tmp_path / "openface"
    (made / "crops_aligned").mkdir(parents=True)
    for number in range(1, 26):
        image = np.full((16, 16, 3), number, np.uint8)
        Image.fromarray(image).save(made / "crops_aligned" / f"frame_det_00_{number:06d}.bmp")
    write_csv(made / "boxes.csv", *(f"{i + 1}, 0, {i / 25}, 0.98, 1, 16, 48, 8, 40" for i in range(25)))
    faces = FacesConfig(kind="openface", path=str(made))
    summary = extract(configure(csv, expression=classifier_folder, faces=faces), quiet())
    assert summary.without_face == 1
    dataset = Dataset.open(tmp_path / "out")
    table = ShardReader(dataset, ("face",)).read(dataset.manifest.splits["train"][0])
    assert table.column("face").is_null().to_pylist() == [False, False, True]
    import pyarrow.parquet as pq

    sources = pq.read_table(tmp_path / "out" / "sources.parquet").to_pylist()
    np.testing.assert_allclose(sources[0]["boxes"], [[16 / 64, 8 / 48, 48 / 64, 40 / 48]] * 8, atol=1e-4)
    assert sources[1]["boxes"] is None
    assert [row["faces"] for row in sources] == [8, 8, 0]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Set faces\.path to the folder that OpenFace wrote into"):
        require_folder(str(tmp_path / "no"))

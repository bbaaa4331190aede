"""Pictures of what an extraction saw."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from lists import HEADER, quiet
from PIL import Image
from videos import write_list, write_video

from vadv_dist.cli import main
from vadv_dist.config.extract_sections import FacesConfig
from vadv_dist.data.dataset import Dataset
from vadv_dist.errors import UserError
from vadv_dist.features.contact_sheet import clip_strips, write_contact_sheets
from vadv_dist.features.extract import extract


def test_each_split_has_a_sheet_with_its_boxes(configure, classifier_folder: Path, tmp_path: Path, capsys) -> None:
    rows = []
    for name, split in (("a", "train"), ("b", "train"), ("c", "valid")):
        write_video(tmp_path / "clips" / f"{name}.mp4", frames=25, size=(200, 100))
        rows.append((f"{name}_0", name, split, "0", "words", f"{name}.mp4"))
    csv = write_list(tmp_path / "clips" / "clips.csv", rows, HEADER)
    made = tmp_path / "openface"
    made.mkdir()
    lines = [f"{i / 25}, 0.98, 1, 50, 150, 20, 80" for i in range(25)]
    for name in ("a", "c"):
        (made / f"{name}.csv").write_text("\n".join(["timestamp, confidence, success, x_0, x_1, y_0, y_1", *lines]))
    faces = FacesConfig(kind="openface", path=str(made))
    extract(configure(csv, expression=classifier_folder, faces=faces), quiet())
    assert main(["data-info", str(tmp_path / "out"), "--pictures", str(tmp_path / "pictures"), "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)["pictures"]
    assert [Path(path).name for path in paths] == ["train.png", "valid.png"]
    sheet = np.asarray(Image.open(paths[1]).convert("RGB")).astype(int)
    assert sheet.shape == (18 + 100, 8 * 200, 3)
    green = (sheet[..., 1] > 200) & (sheet[..., 0] < 80) & (sheet[..., 2] < 110)
    for tile in range(8):
        rows_, columns = np.nonzero(green[18:, tile * 200 : (tile + 1) * 200])
        assert (rows_.min(), rows_.max(), columns.min(), columns.max()) == (20, 80, 50, 150)
    assert np.asarray(Image.open(paths[0])).shape == (2 * 118, 1600, 3)
    assert main(["data-info", str(tmp_path / "out"), "--html", str(tmp_path / "page.html"), "--json"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert [base64.b64decode(part.partition('"')[0]) for part in page.split("data:image/png;base64,")[1:]] == [
        Path(path).read_bytes() for path in paths
    ]
    manifest = Dataset.open(tmp_path / "out").manifest
    data = [{"uri": str(tmp_path / "out"), "fingerprint": manifest.fingerprint}]
    found = clip_strips(data, ["c_0", "elsewhere"])
    assert found.keys() == {"c_0"}
    strip = np.asarray(Image.open(io.BytesIO(found["c_0"])).convert("RGB")).astype(int)
    assert strip.shape == (72, 5 * 144, 3)
    # The first of five tiles shows a frame of the sheet, with its box at the same share of width and height.
    green = (strip[..., 1] - strip[..., 0] > 60) & (strip[..., 1] - strip[..., 2] > 40)
    rows_, columns = np.nonzero(green[:, :144])
    assert (rows_.min(), rows_.max(), columns.min(), columns.max()) == pytest.approx((14, 58, 36, 108), abs=3)
    assert clip_strips([{**data[0], "fingerprint": "another"}], ["c_0"]) == {}
    assert clip_strips([{**data[0], "uri": str(tmp_path / "nowhere")}], ["c_0"]) == {}
    assert clip_strips([*data, *data], ["c_0"]) == {}  # which of them is meant is unknown
    (tmp_path / "clips" / "c.mp4").unlink()
    [reason] = clip_strips(data, ["c_0"]).values()
    assert reason == "missing file"
    assert [p.name for p in write_contact_sheets(tmp_path / "out", tmp_path / "again")] == ["train.png"]


def test_a_data_set_without_clips_has_no_frames(made: Path) -> None:
    fingerprint = Dataset.open(made).manifest.fingerprint
    assert clip_strips([{"uri": str(made), "fingerprint": fingerprint}], ["any"]) == {}


def test_pictures_of_a_data_set_from_another_command_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was not made by vadv extract"):
        write_contact_sheets(made, tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_pictures_of_a_data_set_from_another_reader_version_are_refused(
    configure, clips_csv: Path, tmp_path: Path
) -> None:
    extract(configure(clips_csv), quiet())
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text())
    del manifest["provenance"]["reader"]
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"by version 1 of the video reader.*Leave out --pictures"):
        write_contact_sheets(tmp_path / "out", tmp_path / "pictures")

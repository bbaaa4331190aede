"""Videos and crops of absurd size are refused before they are decoded."""

from pathlib import Path

import pytest
from videos import write_video

from vadv_dist.features import frames, openface
from vadv_dist.features.frames import Video
from vadv_dist.features.timeline import BadClipError


def test_a_video_larger_than_the_bound_is_a_bad_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", frames=4)
    monkeypatch.setattr(frames, "MAX_PIXELS", 64 * 48)
    with path.open("rb") as file, Video(file) as video:
        assert video.size == (64, 48)
    monkeypatch.setattr(frames, "MAX_PIXELS", 64 * 48 - 1)
    with path.open("rb") as file, pytest.raises(BadClipError, match="too large: 64 × 48 pixels"):
        Video(file)


def test_a_crop_larger_than_the_bound_is_a_bad_clip(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("1", (5000, 4000)).save(tmp_path / "frame_det_00_000001.png")
    with pytest.raises(BadClipError, match="it has 5000 × 4000 pixels"):
        openface.read_crop(tmp_path / "frame_det_00_000001.png")

"""Damaged clips, lists and OpenFace files are read or refused with a reason, and nothing else happens."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from damage import MANY, damaged, how_many, run
from PIL import Image
from videos import write_video

from vadv_dist.config.extract_sections import ClipsConfig, ExtractConfig, FacesConfig
from vadv_dist.errors import UserError
from vadv_dist.features.frames import BadClipError
from vadv_dist.features.listing import CSV_COLUMNS, MMSA_COLUMNS, TIME_COLUMNS, ListedClip, list_clips
from vadv_dist.features.openface import Output, read_crop, read_faces
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.stages import ClipReader, StageSpec

REASONS = ("unreadable", "empty file", "no video stream", "zero length", "wrong times", "truncated")
REASONS += ("out of order", "no times", "odd pixels", "odd angle")


def check_message(message: str, what: str = "") -> None:
    """Check that a message has only a few lines and names the damaged file."""
    assert 10 < len(message) < 4000
    assert what in message


def some(counts: Counter[str], files: int) -> bool:
    """Check that all were tried and both outcomes occurred."""
    return counts.total() == files and len(counts) == 2


@pytest.mark.parametrize("files", [160, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.long])])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        pytest.param("a.mkv", "libx264", marks=pytest.mark.slow),
        pytest.param("a.mpg", "mpeg1video", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_clip_is_read_or_has_a_reason(tmp_path: Path, name: str, codec: str, files: int) -> None:
    visual = Preprocessing.square(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    reader = ClipReader(StageSpec(ExtractConfig(faces=FacesConfig(kind="none")), visual, None, "fp32"))
    whole = write_video(tmp_path / name, frames=12, codec=codec).read_bytes()
    path = tmp_path / f"damaged{Path(name).suffix}"
    counts: Counter[str] = Counter()

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(whole, chance))
        batch = reader.read(0, [(ListedClip("a", "a", "train", 0.0, "words", path.name), str(path))])
        [report] = batch.reports
        assert batch.visual is not None
        if report.reason is None:
            assert batch.visual.shape == (1, 8, 16, 16, 3)
        else:
            assert report.reason.split(":")[0] in REASONS
            assert len(batch.visual) == 0
        counts["read" if report.reason is None else "rejected"] += 1

    run(files, example)
    assert some(counts, files)


@how_many
@pytest.mark.parametrize("kind", ["csv", "mmsa"])
def test_a_damaged_list_is_read_or_refused(tmp_path: Path, kind: str, files: int) -> None:
    (tmp_path / "Raw").mkdir()
    path = tmp_path / "label.csv"
    header = (*CSV_COLUMNS, *TIME_COLUMNS) if kind == "csv" else MMSA_COLUMNS
    cell = {"label": "1.5", "split": "train", "mode": "train", "text": '"words, words"', "start_s": "0.5", "end_s": "2"}
    rows = [",".join(cell.get(name, f"{name}{i}") for name in header) for i in range(7)]
    whole = "\n".join([",".join(header), *rows, ""]).encode()
    config = ClipsConfig(csv=str(path)) if kind == "csv" else ClipsConfig(mmsa=str(tmp_path))
    counts: Counter[str] = Counter()

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(whole, chance))
        try:
            listed = list_clips(config)
        except UserError as error:
            check_message(str(error))
            counts["refused"] += 1
            return
        assert len({clip.clip_id for clip in listed.clips}) == len(listed.clips) > 0
        assert all(-3 <= clip.label <= 3 and clip.text and clip.path for clip in listed.clips)
        counts["read"] += 1

    run(files, example)
    assert some(counts, files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["Raw", "label.csv"]


@how_many
def test_damaged_landmarks_are_read_or_have_a_reason(tmp_path: Path, files: int) -> None:
    path = tmp_path / "a.csv"
    rows = [f"{i / 25}, 0.98, 1, 120, 240, 80, 220" for i in range(20)]
    whole = "\n".join(["timestamp, confidence, success, x_0, x_1, y_0, y_1", *rows]).encode()
    counts: Counter[str] = Counter()

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(whole, chance))
        try:
            faces = read_faces(Output("a", None, path), min_score=0.5)
        except BadClipError as error:
            check_message(str(error), path.name)
            counts["rejected"] += 1
            return
        assert faces is not None
        assert len(faces.boxes) == len(faces.coverage.stamps)
        assert all(boxes.shape[1:] == (4,) and np.isfinite(boxes).all() for boxes in faces.boxes)
        counts["read"] += 1

    run(files, example)
    assert some(counts, files)


@how_many
def test_damaged_crops_are_read_or_have_a_reason(tmp_path: Path, files: int) -> None:
    path = tmp_path / "frame_det_00_000001.png"
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(path)
    whole = path.read_bytes()
    counts: Counter[str] = Counter()

    def example(chance: random.Random) -> None:
        path.write_bytes(damaged(whole, chance))
        try:
            crop = read_crop(path)
        except BadClipError as error:
            check_message(str(error), path.name)
            counts["rejected"] += 1
            return
        assert crop.ndim == 3
        assert crop.shape[2] == 3
        assert crop.dtype == np.uint8
        counts["read"] += 1

    run(files, example)
    assert some(counts, files)

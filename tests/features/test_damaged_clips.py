"""Damaged clips are rejected with a reason or read; nothing else happens."""

import random
from pathlib import Path

import pytest
from videos import write_video

from vadv_dist.config.extract_sections import ExtractConfig, FacesConfig
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.stages import ClipReader, Preparations, StageSpec

FILES = 150
REASONS = ("unreadable", "empty file", "no video stream", "zero length", "wrong times", "truncated")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        pytest.param("a.mkv", "libx264", marks=pytest.mark.slow),
        pytest.param("a.mpg", "mpeg1video", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_clip_is_read_or_has_a_reason(tmp_path: Path, name: str, codec: str) -> None:
    prepared = Preparations(Preprocessing.square(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), None)
    reader = ClipReader(StageSpec(ExtractConfig(faces=FacesConfig(kind="none")), prepared, "fp32"))
    whole = write_video(tmp_path / name, frames=12, codec=codec).read_bytes()
    dice = random.Random(0)
    counts = {"read": 0, "rejected": 0}
    damaged = tmp_path / f"damaged{Path(name).suffix}"
    for _ in range(FILES):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 3, 30))):
            content[dice.randrange(len(content))] = dice.randrange(256)
        kept = dice.choice((len(content), dice.randrange(len(content))))
        damaged.write_bytes(bytes(content[:kept]))
        clip = ListedClip("a", "a", "train", 0.0, "words", damaged.name)
        batch = reader.read(0, [(clip, str(damaged))])
        [report] = batch.reports
        if report.reason is None:
            assert batch.visual.shape == (1, 8, 16, 16, 3)
            counts["read"] += 1
        else:
            assert report.reason.split(":")[0] in REASONS
            assert len(batch.visual) == 0
            counts["rejected"] += 1
    assert min(counts.values()) > 0

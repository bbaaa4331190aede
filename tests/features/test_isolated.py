"""A clip that crashes its process is rejected, and the others of its batch are read."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from videos import write_video

from vadv_dist.config.extract_sections import ExtractConfig, FacesConfig
from vadv_dist.features.isolated import CRASHED, begun, read_each_apart
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.stages import ClipReader, ReadClip, StageSpec

SPEC = StageSpec(
    ExtractConfig(faces=FacesConfig(kind="none")),
    Preprocessing.square(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    None,
    "fp32",
)


def deadly(spec: StageSpec, clip: ListedClip, location: str) -> ReadClip:
    """Reads a clip and dies at clip b."""
    if clip.clip_id == "b":
        os.kill(os.getpid(), signal.SIGSEGV)
    return ClipReader(spec).read_clip(clip, location)


@pytest.mark.slow
def test_a_crashing_clip_is_rejected_and_the_others_are_unaffected(tmp_path: Path) -> None:
    clips = []
    for n, name in enumerate("abc"):
        path = write_video(tmp_path / f"{name}.mp4", frames=10, seed=n)
        clips.append((ListedClip(name, name, "train", 0.0, "words", path.name), str(path)))
    apart = read_each_apart(SPEC, 7, clips, deadly)
    assert [report.reason for report in apart.reports] == [None, CRASHED, None]
    whole = ClipReader(SPEC).read(7, [clips[0], clips[2]])
    np.testing.assert_array_equal(apart.visual, whole.visual)
    assert [apart.reports[0], apart.reports[2]] == whole.reports
    assert read_each_apart(SPEC, 7, clips[1:2], deadly).visual.shape[0] == 0


def test_a_started_but_unfinished_batch_is_noted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with begun("run", 3) as before:
        assert before == 0
    try:
        with begun("run", 3):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with begun("run", 3) as before:
        assert before == 1
    with begun("run", 3) as before:
        assert before == 0
    assert list(tmp_path.iterdir()) == []

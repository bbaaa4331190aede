"""Clips in an object store are read like those on a disk."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import FaultyProxy
from videos import write_video

from vadv_dist.config.extract_sections import ExtractConfig, FacesConfig
from vadv_dist.errors import MachineError, UserError
from vadv_dist.features.clip_files import open_clip, open_hashed
from vadv_dist.features.frames import BadClipError, Video, to_image
from vadv_dist.features.listing import ListedClip
from vadv_dist.features.pixels import Preprocessing
from vadv_dist.features.stages import ClipReader, StageSpec
from vadv_dist.storage import join, location, object_client, reads
from vadv_dist.storage import objects as object_storage
from vadv_dist.storage.objects import S3Path


@pytest.fixture
def place(s3: str, request: pytest.FixtureRequest) -> S3Path:
    """A separate prefix for each test."""
    return S3Path.parse(f"{s3}/{request.node.name}")


@pytest.fixture
def fetched(monkeypatch) -> Iterator[list[str]]:
    """The objects fetched from the store, one entry per request."""
    seen: list[str] = []
    original = reads._fetch

    def fetch(path: S3Path) -> object:
        seen.append(path.name)
        return original(path)

    monkeypatch.setattr(reads, "_fetch", fetch)
    monkeypatch.setattr(reads, "_last", None)
    yield seen
    if reads._last is not None and not isinstance(reads._last.source, Path):
        reads._last.source.close()


def reader() -> ClipReader:
    visual = Preprocessing.square(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return ClipReader(StageSpec(ExtractConfig(faces=FacesConfig(kind="none")), visual, None, "fp32"))


def test_a_video_of_several_clips_is_fetched_once_and_again_after_a_change(place: S3Path, fetched: list[str]) -> None:
    (place / "a").write_bytes(b"first")
    for _ in range(2):
        file, size, digest = open_hashed(f"{place}/a")
        with file:
            assert file.read() == b"first"
        assert (size, digest) == (5, hashlib.sha256(b"first").hexdigest())
    assert fetched == ["a"]
    (place / "a").write_bytes(b"second")
    with open_clip(f"{place}/a") as file:
        assert file.read() == b"second"
    assert fetched == ["a", "a"]


def test_a_large_video_is_read_by_ranges_without_loading_it(place, fetched, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(object_storage, "PART_BYTES", 1000)
    path = write_video(tmp_path / "large.mp4", frames=60)
    assert path.stat().st_size > 5000
    (place / "large.mp4").write_bytes(path.read_bytes())
    for _ in range(2):
        file, size, digest = open_hashed(f"{place}/large.mp4")
        assert (size, digest) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        with file, path.open("rb") as on_disk, Video(file) as video, Video(on_disk) as expected:
            times = video.span(None, None).middles(4)
            frames = [to_image(picture) for _, picture in video.frames(times)]
            for frame, (_, wanted) in zip(frames, expected.frames(times), strict=True):
                assert (frame == to_image(wanted)).all()
    assert fetched == ["large.mp4"]
    assert not isinstance(reads._last.source, Path)


def test_a_video_that_changes_during_reading_is_rejected(place, fetched, monkeypatch) -> None:
    monkeypatch.setattr(object_storage, "PART_BYTES", 1000)
    (place / "a").write_bytes(bytes(5000))
    original = S3Path.open

    def change_after_the_first_part(self: S3Path) -> object:
        opened = original(self)
        self.write_bytes(os.urandom(5000))
        return opened

    monkeypatch.setattr(S3Path, "open", change_after_the_first_part)
    with pytest.raises(BadClipError, match="unreadable: it was changed while it was being read"):
        open_clip(f"{place}/a")


def test_bad_objects_have_the_same_reasons_as_bad_files(place: S3Path, tmp_path: Path) -> None:
    (place / "empty.mp4").write_bytes(b"")
    (place / "broken.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    names = ["missing.mp4", "empty.mp4", "broken.mp4", "n" * 2000]
    clips = [ListedClip(name, "v", "train", 0.0, "words", name) for name in names]
    there, here = (
        reader().read(0, [(clip, str(join(root, clip.path))) for clip in clips]).reports for root in (place, tmp_path)
    )
    reasons = [str(report.reason) for report in there]
    assert reasons[:3] == [report.reason for report in here[:3]]
    assert reasons[:2] == ["missing file", "empty file"]
    assert reasons[3].startswith("unreadable: File name too long")


def test_an_unresponsive_store_ends_the_job_without_rejecting_clips(place, s3_port: int, monkeypatch) -> None:
    clip = ListedClip("a", "a", "train", 0.0, "words", "a.mp4")
    monkeypatch.setattr(object_client, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(object_client, "MAX_ATTEMPTS", 3)
    with FaultyProxy(s3_port, share=1.0) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        object_client.forget_client()
        with pytest.raises(MachineError, match="failed 3 times"):
            reader().read(0, [(clip, f"{place}/a.mp4")])
    object_client.forget_client()
    with pytest.raises(UserError, match="no such bucket"):
        reader().read(0, [(clip, "s3://no-such-bucket-here/a.mp4")])


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("s3://b/lists", "a.mp4", "s3://b/lists/a.mp4"),
        ("s3://b/lists", "../videos/./a.mp4", "s3://b/videos/a.mp4"),
        ("s3://b/lists", "../../../a.mp4", "s3://b/a.mp4"),
        ("s3://b", "a.mp4", "s3://b/a.mp4"),
        ("s3://b/lists", "s3://other/a.mp4", "s3://other/a.mp4"),
        ("s3://b/lists", "/data/a.mp4", "/data/a.mp4"),
        ("/lists", "s3://b/a.mp4", "s3://b/a.mp4"),
        ("/lists", "file:///data/a.mp4", "/data/a.mp4"),
    ],
)
def test_paths_are_relative_to_the_list(root: str, path: str, expected: str) -> None:
    assert str(join(location(root), path)) == expected

"""Sampled frames compared with decoding everything, and the reason for each kind of bad clip."""

from pathlib import Path

import av
import numpy as np
import pytest
from videos import read_number, write_sound, write_video

from vadv_dist.features.clip_files import open_clip
from vadv_dist.features.frames import BadClipError, Span, Video, to_image


def sampled(
    path: Path, times: list[float] | int, *, seek: bool = True, start=None, end=None
) -> tuple[list[int], Video]:
    with open_clip(str(path)) as file, Video(file, seek=seek) as video:
        span = video.span(start, end)
        wanted = span.middles(times) if isinstance(times, int) else times
        return [read_number(to_image(frame)) for _, frame in video.frames(wanted)], video


def fully_decoded(path: Path) -> list[tuple[float, int]]:
    """(seconds from the first frame, number shown) of every frame, from a plain PyAV loop."""
    with av.open(str(path)) as container:
        frames = [(frame.time, read_number(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]
    return [(time - frames[0][0], number) for time, number in frames]


def test_times_are_the_midpoints_of_equal_parts() -> None:
    assert Span(1.0, 3.0).middles(4) == [1.25, 1.75, 2.25, 2.75]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mpg", "mpeg1video")])
@pytest.mark.parametrize("count", [1, 8, 64])
def test_sampled_frames_match_a_full_decode(tmp_path: Path, name: str, codec: str, count: int) -> None:
    path = write_video(tmp_path / name, frames=50, codec=codec)
    frames = fully_decoded(path)
    assert [number for _, number in frames] == list(range(50))
    with open_clip(str(path)) as file, Video(file) as video:
        times = video.span(None, None).middles(count)
    assert 1.9 < times[-1] + times[0] < 2.05
    expected = [[number for at, number in frames if at <= wanted + 1e-9][-1] for wanted in times]
    assert sampled(path, count)[0] == expected


@pytest.mark.parametrize(("name", "gop"), [("a.mp4", 10), ("a.mkv", 10), ("a.mp4", 1000)])
def test_seeking_does_not_change_the_frames(tmp_path: Path, name: str, gop: int) -> None:
    path = write_video(tmp_path / name, frames=300, gop=gop)
    with_seeks, fast = sampled(path, 5)
    without, slow = sampled(path, 5, seek=False)
    assert with_seeks == without == [30, 90, 150, 210, 270]
    assert slow.decoded >= 270
    assert fast.decoded < 120 if gop == 10 else fast.decoded >= 270


def test_a_part_far_inside_a_long_file_is_reached_by_seeking(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", frames=600, gop=25)
    numbers, video = sampled(path, 8, start=20.0, end=21.0)
    assert numbers == [500 + int((i + 0.5) / 8 * 25) for i in range(8)]
    assert video.decoded < 80


def test_without_an_index_a_far_seek_gives_the_same_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mpg", frames=600, codec="mpeg1video", gop=12)
    wanted = [0.0, 20.0, 20.5]
    with_seeks, fast = sampled(path, wanted)
    without, slow = sampled(path, wanted, seek=False)
    assert with_seeks == without == [0, 500, 512]
    assert fast.decoded < slow.decoded / 2


def test_a_short_clip_repeats_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", frames=3)
    assert sampled(path, 9)[0] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_frames_are_scaled_down_but_never_up(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2, size=(64, 48))
    with open_clip(str(path)) as file, Video(file) as video:
        [(_, frame)] = list(video.frames([0.0]))
        assert to_image(frame, 32).shape == (24, 32, 3)
        assert to_image(frame, 640).shape == (48, 64, 3)
        assert to_image(frame).dtype == np.uint8


def reason(path: Path, start: float | None = None, end: float | None = None) -> str:
    with pytest.raises(BadClipError) as caught:
        sampled(path, 4, start=start, end=end)
    return str(caught.value)


def test_each_kind_of_bad_clip_has_its_reason(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", frames=50)
    assert reason(tmp_path / "nowhere.mp4") == "missing file"
    assert reason(tmp_path) == "missing file"
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert reason(tmp_path / "empty.mp4") == "empty file"
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    assert reason(tmp_path / "text.mp4").startswith("unreadable")
    assert reason(write_sound(tmp_path / "sound.m4a")) == "no video stream"
    assert reason(good, start=5.0) == "wrong times: it starts at 5 s, but the video ends at 2.00 s"
    assert reason(good, start=1.0, end=9.0) == "wrong times: it ends at 9 s, but the video ends at 2.00 s"
    assert reason(good, start=1.0, end=0.5).startswith("wrong times")
    with av.open(str(tmp_path / "none.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert reason(tmp_path / "none.mkv") == "zero length"


def test_an_end_rounded_past_the_video_is_accepted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=50)
    assert len(sampled(path, 4, start=1.0, end=2.1)[0]) == 4


def test_a_truncated_file_is_detected(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mkv", frames=200)
    whole = path.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "b.mp4", frames=200).read_bytes()[:3000])
    assert reason(tmp_path / "cut.mp4").startswith("unreadable")
    # A truncated Matroska file still plays, and declares its original length.
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "cut.mkv", start=0.0, end=8.0).split(":")[0] in ("truncated", "wrong times", "unreadable")

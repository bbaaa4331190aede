"""Frames of files with unusual times, key frames, streams or ends.

Every frame shows its number, so that the right ones are known without a second reader.
"""

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from videos import read_number, write_video

import vadv_dist.features.frames as frames_module
from vadv_dist.features.frames import BadClipError, Video, to_image

# The midpoints of eight equal parts of 60 frames: 7.5 (n + 1/2).
MIDDLES = [3, 11, 18, 26, 33, 41, 48, 56]
OPEN_GOP = {"x264-params": "open-gop=1:bframes=2:keyint=12:scenecut=0"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "transport stream": ("a.ts", {}),
    "transport stream of one group": ("a.ts", {"gop": 250}),
    "transport stream with a late start": ("a.ts", {"container": {"output_ts_offset": "50000"}}),
    "transport stream whose clock has wrapped": ("a.ts", {"container": {"output_ts_offset": "95440"}}),
    "transport stream with sound": ("a.ts", {"codec": "mpeg2video", "seconds_of_sound": 3}),
    "program stream": ("a.mpg", {"codec": "mpeg2video", "seconds_of_sound": 3}),
    "dvd": ("a.vob", {"codec": "mpeg2video"}),
    "avi": ("a.avi", {"codec": "mpeg4", "b_frames": 0}),
    "avi with b-frames": ("a.avi", {}),
    "raw stream without times": ("a.h264", {}),
    "flv": ("a.flv", {"seconds_of_sound": 3}),
    "webm": ("a.webm", {"codec": "libvpx", "b_frames": 0, "options": {"deadline": "realtime"}}),
    "matroska without a duration": ("a.mkv", {"container": {"live": "1"}}),
    "matroska with longer sound": ("a.mkv", {"seconds_of_sound": 6}),
    "fragmented mp4": ("a.mp4", {"container": FRAGMENTS}),
    "fragmented mp4 with sound": ("a.mp4", {"container": FRAGMENTS, "seconds_of_sound": 3}),
    "mp4 with longer sound": ("a.mp4", {"seconds_of_sound": 6}),
    "mp4 without an edit list": ("a.mp4", {"container": {"use_editlist": "0"}, "seconds_of_sound": 3}),
    "open groups, mp4": ("a.mp4", {"options": OPEN_GOP}),
    "open groups, matroska": ("a.mkv", {"options": OPEN_GOP}),
    "open groups, transport stream": ("a.ts", {"options": OPEN_GOP}),
    "gradual refresh without key pictures": ("a.ts", {"options": REFRESH, "b_frames": 0}),
}


def read(path: Path, times: list[float] | None = None, *, seek: bool = True) -> list[int]:
    with path.open("rb") as file, Video(file, seek=seek) as video:
        wanted = video.span(None, None).middles(8) if times is None else times
        return [read_number(to_image(picture)) for _, picture in video.frames(wanted)]


@pytest.mark.parametrize("kind", FILES)
def test_frames_are_right_in_every_container(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, options = FILES[kind]
    path = write_video(tmp_path / name, frames=60, **options)
    assert read(path) == MIDDLES
    with path.open("rb") as file, Video(file) as video:
        assert video.whole.end_s - video.whole.start_s == pytest.approx(2.4, abs=0.002)
        assert len(video.shown_s) == 60
        begin = video.whole.start_s
    # Seek between any two frames, even if it does not pay off.
    monkeypatch.setattr(frames_module, "_SEEK_FRAMES", 0)
    chance = random.Random(kind)
    for _ in range(6):
        wanted = sorted(chance.sample(range(60), 3))
        assert read(path, [begin + (number + 0.5) / 25 for number in wanted]) == wanted


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_times_match_a_player_if_audio_starts_before_the_video(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, times=range(25, 85), frames=60, seconds_of_sound=3)
    assert read(path) == MIDDLES
    assert read(path, [2.1]) == [{"a.mp4": 27, "a.mkv": 27, "a.ts": 26}[name]]  # a transport stream's sound is primed
    with path.open("rb") as file, Video(file) as video:
        assert 1.0 <= video.span(None, None).start_s < 1.1
        with pytest.raises(BadClipError, match=r"wrong times: it starts at 0 s, before the video at 1\.0\d s"):
            video.span(0.0, 2.0)


def test_frames_hidden_by_an_edit_list_are_skipped(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=60, times=range(-10, 50))
    assert read(path, [0.02, 1.0]) == [10, 35]
    with path.open("rb") as file, Video(file) as video:
        assert (video.whole.start_s, video.whole.end_s) == (0.0, 2.0)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rate_gives_the_frames_shown_at_the_times(tmp_path: Path, name: str) -> None:
    times = [3 * n * n + 20 * n for n in range(60)]
    path = write_video(tmp_path / name, frames=60, times=times, time_base=Fraction(1, 1000))
    wanted = [0.5 * n for n in range(20)]
    expected = [max(n for n in range(60) if times[n] <= 1000 * at) for at in wanted]
    assert read(path, wanted) == read(path, wanted, seek=False) == expected


def test_a_stream_cut_inside_a_group_starts_with_its_first_decodable_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", frames=60)
    whole = path.read_bytes()
    path.write_bytes(whole[188 * 20 :])
    assert read(path)[0] >= 12
    with path.open("rb") as file, Video(file) as video:
        count = len(video.shown_s)
        assert [read_number(to_image(p)) for _, p in video.frames(video.shown_s)] == list(range(60 - count, 60))


def test_concatenated_streams_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", frames=30)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BadClipError, match=r"out of order: after 1\.\d\d s the video continues at"):
        read(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_truncated_file_is_refused_as_a_whole_but_its_parts_can_be_read(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, frames=200, container={"movflags": "faststart"} if name == "a.mp4" else None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BadClipError, match="truncated: the video breaks off at"):
        read(path)
    assert read(path, [0.0, 1.0, 2.0]) == [0, 25, 50]
    with path.open("rb") as file, Video(file) as video:
        assert video.span(0.5, 2.0).end_s == 2.0
        with pytest.raises(BadClipError, match="truncated: the video breaks off at"):
            video.span(0.5, 8.0)


def shown(path: Path) -> tuple[tuple[int, int], int]:
    with path.open("rb") as file, Video(file) as video:
        [(_, picture)] = video.frames([0.0])
        return video.size, round(to_image(picture).mean() / 10) * 10


def test_the_default_stream_is_read_then_the_largest_and_never_cover_art(tmp_path: Path) -> None:
    def write(name: str, *streams: tuple[int, int, str], codec: str = "libx264") -> Path:
        with av.open(str(tmp_path / name), "w") as file:
            opened = []
            for place, (width, _, disposition) in enumerate(streams):
                stream = file.add_stream("mjpeg" if place == 0 and codec == "mjpeg" else "libx264", rate=25)
                stream.width, stream.height = width, 64
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" and place == 0 else "yuv420p"
                stream.disposition = getattr(Disposition, disposition) if disposition else 0
                opened.append(stream)
            packets = []
            for stream, (width, brightness, disposition) in zip(opened, streams, strict=True):
                for number in range(1 if disposition == "attached_pic" else 5):
                    grey = np.full((64, width, 3), brightness, np.uint8)
                    frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, 25)
                    packets += stream.encode(frame)
                packets += stream.encode()
            for packet in packets:
                if packet.dts is not None:
                    file.mux(packet)
        return tmp_path / name

    assert shown(write("a.mkv", (64, 50, ""), (96, 150, ""))) == ((96, 64), 150)
    assert shown(write("b.mkv", (64, 50, "default"), (96, 150, ""))) == ((64, 64), 50)
    assert shown(write("c.mkv", (64, 50, ""), (64, 150, ""))) == ((64, 64), 50)
    cover = write("d.mp4", (160, 50, "attached_pic"), (96, 150, ""), codec="mjpeg")
    with av.open(str(cover)) as file:
        assert len(file.streams.video) == 2
    assert shown(cover) == ((96, 64), 150)

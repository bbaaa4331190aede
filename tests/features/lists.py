"""Lists of clips to extract, and the files of the result."""

import io
import os
from pathlib import Path

from rich.console import Console
from videos import write_list, write_sound, write_video

from vadv_dist.storage import read_json

HEADER = "clip_id,video_id,split,label,text,path"
YUNET = "models/face_detection_yunet_2021sep.onnx"


def quiet() -> Console:
    return Console(file=io.StringIO())


def contents(folder: Path) -> dict[str, object]:
    """The bytes of every file of a data set, without the time in dataset.json."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    manifest = read_json(folder / "dataset.json")
    manifest["provenance"].pop("created")
    return {**found, "dataset.json": manifest}


def bad_list(folder: Path, good: int = 8) -> Path:
    """Good clips, and one of each bad kind."""
    rows = [(f"g{n}_0", f"g{n}", "train", "1", "fine words", f"g{n}.mp4", "", "") for n in range(good)]
    for n in range(good):
        write_video(folder / f"g{n}.mp4", frames=6, seed=n)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "broken.mp4").write_bytes(os.urandom(2000))
    write_sound(folder / "sound.m4a")
    bad = [("missing", "", ""), ("empty.mp4", "", ""), ("broken.mp4", "", ""), ("sound.m4a", "", "")]
    bad += [("g0.mp4", "7", "9"), ("g0.mp4", "2", "1"), ("g0.mp4", "x", "")]
    rows[2:2] = [(f"b{n}_0", f"b{n}", "train", "0", "bad", path, *times) for n, (path, *times) in enumerate(bad)]
    return write_list(folder / "clips.csv", rows, f"{HEADER},start_s,end_s")

"""Readers use memory for a shard, not for the whole file, which is far larger than the limit."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from foreign_files import write_csd, write_mmsa

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
MEBIBYTES = 60
FILE_BYTES = 100 << 20

SCRIPT = """
import sys, threading, time
from pathlib import Path
import numpy as np
from vadv_dist.data.readers.cmu_sdk import ingest_cmu_sdk
from vadv_dist.data.readers.mmsa import ingest_mmsa
from vadv_dist.data.readers.table import ingest_table
from vadv_dist.data.readers.vegas import ingest_vegas
from vadv_dist.data import shards
from vadv_dist.data.shards import DatasetWriter
place = Path(sys.argv[1])
def taken():  # without file mappings, which the system may drop at any time
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":") for line in lines)["RssAnon"].split()[0])
(place / "warm.csv").write_text("id,split,label,text\\na,train,0,words\\n")
ingest_table(place / "warm.csv", place / "warm")  # libraries loaded by the first write
before = most = taken()
def watch():
    global most
    while True:
        most = max(most, taken())
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
DatasetWriter.__init__.__kwdefaults__.update(shard_rows=64)
shards._SHARD_BYTES = 2 << 20
"""


def ingest(place: Path, call: str) -> tuple[int, int]:
    """Run one call in a separate process; return the number of rows it wrote and its memory growth in MiB."""
    script = SCRIPT + f"rows = {call}.rows_written\nprint(rows, (most - before) >> 10)"
    done = subprocess.run([sys.executable, "-c", script, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written, grown = map(int, done.stdout.split())
    return written, grown


@pytest.mark.slow
def test_mmsa(tmp_path: Path) -> None:
    rows = 200
    values = np.ones((rows, FILE_BYTES // rows // 4 // 64, 64), np.float32)
    columns = {
        "id": [f"v$_${i}" for i in range(rows)],
        "raw_text": ["words"] * rows,
        "regression_labels": np.zeros(rows),
        "vision": values,
    }
    write_mmsa(tmp_path / "m.pkl", {"train": columns})
    written, grown = ingest(tmp_path, "ingest_mmsa(place / 'm.pkl', place / 'out', features=['vision'])")
    assert written == rows
    assert grown < MEBIBYTES


@pytest.mark.slow
def test_arrays_of_a_table(tmp_path: Path) -> None:
    rows = 200
    (tmp_path / "t.csv").write_text("id,split,label,text\n" + "".join(f"a_{i},train,0,words\n" for i in range(rows)))
    values = np.ones((rows, FILE_BYTES // rows // 4 // 64, 64), np.float32)
    np.savez(tmp_path / "f.npz", id=[f"a_{i}" for i in range(rows)], x=values)
    # Frames are stored unchanged, so a row takes half a mebibyte, as in the file.
    arrays = f"arrays=['{tmp_path}/f.npz:x=audio']"
    written, grown = ingest(tmp_path, f"ingest_table(place / 't.csv', place / 'out', {arrays})")
    assert written == rows
    assert grown < MEBIBYTES


@pytest.mark.slow
def test_a_table_of_long_texts(tmp_path: Path) -> None:
    text = "word " * 4096
    rows = FILE_BYTES // len(text)
    with (tmp_path / "t.csv").open("w") as file:
        file.write("id,split,label,text\n")
        file.writelines(f"a_{i},train,0,{text}\n" for i in range(rows))
    written, grown = ingest(tmp_path, "ingest_table(place / 't.csv', place / 'out')")
    assert written == rows
    assert grown < MEBIBYTES


@pytest.mark.slow
def test_cmu_sdk(tmp_path: Path) -> None:
    videos = [f"v{i}" for i in range(40)]
    (tmp_path / "folds.json").write_text('{"train": [' + ", ".join(f'"{v}"' for v in videos) + "]}")
    write_csd(tmp_path / "labels.csd", "labels", {v: ([[0, 10]], [[1.0]]) for v in videos})
    write_csd(tmp_path / "words.csd", "words", {v: ([[0, 1]], np.array([[b"word"]])) for v in videos})
    length = FILE_BYTES // len(videos) // 4 // 64
    times = np.linspace(0, 10, length + 1)
    audio = (np.stack([times[:-1], times[1:]], axis=1), np.ones((length, 64), np.float32))
    write_csd(tmp_path / "audio.csd", "audio", dict.fromkeys(videos, audio))
    files = "place / 'labels.csd', place / 'folds.json', place / 'out', words=place / 'words.csd'"
    written, grown = ingest(tmp_path, f"ingest_cmu_sdk({files}, audio=place / 'audio.csd')")
    assert written == len(videos)
    assert grown < MEBIBYTES


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [None, (64, 1024)])
def test_vegas(tmp_path: Path, chunks: tuple[int, int] | None) -> None:
    rows = FILE_BYTES // 4 // 1024
    with h5py.File(tmp_path / "v.h5", "w") as file:
        for split, count in (("train", rows), ("test", 20)):
            file.create_dataset(
                f"visual_{split}", data=np.ones((count, 1024), np.float32), chunks=chunks and (16, 1024)
            )
            file[f"audio_{split}"] = np.ones((count, 128), np.float32)
            file[f"lab_{split}"] = np.arange(count) % 10
    written, grown = ingest(tmp_path, "ingest_vegas(place / 'v.h5', place / 'out')")
    assert written == rows + 20
    assert grown < MEBIBYTES
